//! Statistics of returns: of the episodes of one policy, and of the seeds of one algorithm.
//!
//! [`Summary`] is for the episodes of one policy: mean and the 95 % interval of the mean by Student's t. The returns of
//! a policy are not normal: the interval is the usual approximation, nothing more.
//!
//! [`Scores`] is for seeds, of which there are few and some fail: mean and interquartile mean, each with the 95 %
//! percentile interval of the stratified [`Bootstrap`], minimum and maximum (Agarwal et al., "Deep reinforcement
//! learning at the edge of the statistical precipice", 2021: the tasks are the strata, within a task seeds are drawn
//! with replacement). With few seeds a percentile interval is too narrow: five normal scores give one that covers the
//! mean in 85 % of cases (`coverage_is_the_predicted_one` computes it), ten in 90 %.
//!
//! Pure and deterministic; no panics. An interval of fewer than two numbers is not known and comes out as NaN, as does
//! everything of none and everything of a sample with a NaN in it. A bootstrap of five seeds takes a millisecond.

use crate::noise::Noise;

/// A sample, summed up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Size of the sample.
    pub n: usize,
    /// Its mean.
    pub mean: f64,
    /// Its standard deviation, with n - 1.
    pub sd: f64,
    /// Half the width of the 95 % interval of the mean.
    pub ci95: f64,
}

impl Summary {
    /// Sums up a sample.
    pub fn of(sample: &[f64]) -> Self {
        let n = sample.len();
        let mean = sample.iter().sum::<f64>() / n as f64;
        let squares: f64 = sample.iter().map(|x| (x - mean) * (x - mean)).sum();
        let freedom = n.saturating_sub(1);
        let sd = (squares / freedom as f64).sqrt();
        let ci95 = student_975(freedom) * sd / (n as f64).sqrt();
        Self { n, mean, sd, ci95 }
    }

    /// The 95 % interval of the mean.
    pub fn interval(&self) -> (f64, f64) {
        (self.mean - self.ci95, self.mean + self.ci95)
    }
}

/// The 0.975 quantile of Student's t: 95 % lie within plus and minus it. NaN without a degree of freedom.
pub fn student_975(freedom: usize) -> f64 {
    if freedom == 0 {
        return f64::NAN;
    }
    // Past this the quantile is that of the normal to three digits, and the series below would be long.
    let freedom = freedom.min(10_000);
    // With one degree of freedom, the widest case, the quantile is 12.7.
    let (mut low, mut high) = (1.9, 13.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if share_within(middle, freedom) < 0.95 {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// Probability that |t| is below a bound: the finite trigonometric series for whole degrees of freedom.
fn share_within(bound: f64, freedom: usize) -> f64 {
    let nu = freedom as f64;
    let angle = (bound / nu.sqrt()).atan();
    let (sin, cos) = angle.sin_cos();
    let odd = freedom % 2 == 1;
    // Even: 1 + 1/2 cos^2 + (1 3)/(2 4) cos^4 + ...; odd: cos + 2/3 cos^3 + (2 4)/(3 5) cos^5 + ...
    let mut term = if odd { cos } else { 1.0 };
    let mut sum = 0.0;
    let mut k = if odd { 3 } else { 2 };
    while k <= freedom {
        sum += term;
        term *= cos * cos * (k - 1) as f64 / k as f64;
        k += 2;
    }
    if odd { (angle + sin * sum) * std::f64::consts::FRAC_2_PI } else { sin * sum }
}

/// The interquartile mean: the mean of the middle half.
///
/// A quarter of the sample is cut off at each end, exactly: where `n / 4` is no whole number, the outermost values that
/// stay count in part. (Some programs cut whole values only; the two agree where `n` is divisible by four.)
pub fn interquartile_mean(sample: &[f64]) -> f64 {
    let mut sorted = sample.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    interquartile_mean_of_sorted(&sorted)
}

/// Value `i` of the sorted sample covers `[i, i + 1)`; its weight is what of that lies in `[n / 4, 3 n / 4]`.
fn interquartile_mean_of_sorted(sorted: &[f64]) -> f64 {
    // A NaN is sorted to one of the ends, where its weight may be zero.
    if sorted.first().is_none_or(|x| x.is_nan()) || sorted.last().is_none_or(|x| x.is_nan()) {
        return f64::NAN;
    }
    let n = sorted.len() as f64;
    let (low, high) = (0.25 * n, 0.75 * n);
    let weighted = sorted.iter().enumerate().map(|(i, x)| {
        let weight = (high.min(i as f64 + 1.0) - low.max(i as f64)).max(0.0);
        if weight > 0.0 { weight * x } else { 0.0 }
    });
    weighted.sum::<f64>() / (high - low)
}

/// The arithmetic mean.
pub fn mean(sample: &[f64]) -> f64 {
    sample.iter().sum::<f64>() / sample.len() as f64
}

/// The quantile of a sorted sample, linear between neighbours (`share` from 0 to 1). NaN of none.
fn quantile_of_sorted(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = share * last as f64;
    let below = (place.floor() as usize).min(last);
    let above = (below + 1).min(last);
    sorted[below] + (place - below as f64) * (sorted[above] - sorted[below])
}

/// An interval; both ends NaN where it is not known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

impl Interval {
    const UNKNOWN: Self = Self { low: f64::NAN, high: f64::NAN };

    /// Whether it is known.
    pub fn is_known(&self) -> bool {
        self.low.is_finite() && self.high.is_finite()
    }
}

/// The stratified percentile bootstrap: how often it resamples, and with which random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    /// Number of resamples.
    pub resamples: usize,
    /// Seed of the resampling: equal seeds give equal intervals.
    pub seed: u64,
}

impl Default for Bootstrap {
    /// 10,000 resamples: the ends of the interval move by about 2 % of its width from one seed to another.
    fn default() -> Self {
        Self { resamples: 10_000, seed: 0 }
    }
}

impl Bootstrap {
    /// The 95 % interval of `statistic`, which gets all scores in one sorted slice.
    ///
    /// Within each stratum as many scores as it has are drawn with replacement; the interval lies between the 0.025 and
    /// the 0.975 quantile of the statistic of the resamples. Not known where no stratum has two scores, or a score is
    /// not finite.
    pub fn interval(&self, strata: &[&[f64]], statistic: impl Fn(&[f64]) -> f64) -> Interval {
        let finite = strata.iter().all(|stratum| stratum.iter().all(|x| x.is_finite()));
        if !finite || self.resamples == 0 || strata.iter().all(|stratum| stratum.len() < 2) {
            return Interval::UNKNOWN;
        }
        let mut noise = Noise::new(self.seed, 0);
        let mut pooled = vec![0.0; strata.iter().map(|stratum| stratum.len()).sum()];
        let mut statistics: Vec<f64> = Vec::with_capacity(self.resamples);
        for _ in 0..self.resamples {
            let mut slots = pooled.iter_mut();
            for stratum in strata {
                for slot in slots.by_ref().take(stratum.len()) {
                    *slot = stratum[noise.below(stratum.len())];
                }
            }
            pooled.sort_unstable_by(f64::total_cmp);
            statistics.push(statistic(&pooled));
        }
        statistics.sort_unstable_by(f64::total_cmp);
        Interval { low: quantile_of_sorted(&statistics, 0.025), high: quantile_of_sorted(&statistics, 0.975) }
    }
}

/// The scores of an algorithm, one for each seed, summed up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    /// Number of scores.
    pub n: usize,
    /// Their mean.
    pub mean: f64,
    /// Its 95 % bootstrap interval.
    pub mean_interval: Interval,
    /// Their interquartile mean.
    pub iqm: f64,
    /// Its 95 % bootstrap interval.
    pub iqm_interval: Interval,
    /// The lowest.
    pub min: f64,
    /// The highest.
    pub max: f64,
}

impl Scores {
    /// Sums up the scores of one task.
    pub fn of(scores: &[f64]) -> Self {
        Self::stratified(&[scores], Bootstrap::default())
    }

    /// Sums up the scores of several tasks, one stratum each; scores of different tasks must be on one scale.
    pub fn stratified(strata: &[&[f64]], bootstrap: Bootstrap) -> Self {
        let mut pooled = strata.concat();
        pooled.sort_unstable_by(f64::total_cmp);
        let mean = mean(&pooled);
        let end = |x: Option<&f64>| x.copied().filter(|_| !mean.is_nan()).unwrap_or(f64::NAN);
        Self {
            n: pooled.len(),
            mean,
            mean_interval: bootstrap.interval(strata, self::mean),
            iqm: interquartile_mean_of_sorted(&pooled),
            iqm_interval: bootstrap.interval(strata, interquartile_mean_of_sorted),
            min: end(pooled.first()),
            max: end(pooled.last()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Printed tables of the t distribution, column 0.975.
    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (freedom, quantile) in [
            (1, 12.706_205),
            (2, 4.302_653),
            (3, 3.182_446),
            (4, 2.776_445),
            (9, 2.262_157),
            (10, 2.228_139),
            (19, 2.093_024),
            (30, 2.042_272),
            (120, 1.979_930),
        ] {
            assert!((student_975(freedom) - quantile).abs() < 1e-6, "{freedom}");
        }
        assert!((student_975(1_000_000) - 1.96).abs() < 1e-3);
    }

    #[test]
    fn a_sample_worked_by_hand() {
        // Mean 5, squares 9 + 1 + 1 + 9 over 3, t(3) = 3.182446.
        let s = Summary::of(&[2.0, 4.0, 6.0, 8.0]);
        let sd = (20.0_f64 / 3.0).sqrt();
        assert_eq!((s.n, s.mean), (4, 5.0));
        assert!((s.sd - sd).abs() < 1e-12);
        assert!((s.ci95 - 3.182_446 * sd / 2.0).abs() < 1e-5);
        let (low, high) = s.interval();
        assert!((low + high - 10.0).abs() < 1e-12 && low < 5.0);
    }

    #[test]
    fn too_little_is_not_known() {
        let one = Summary::of(&[3.0]);
        assert!(one.mean == 3.0 && one.ci95.is_nan());
        assert!(Summary::of(&[]).mean.is_nan());
        assert_eq!(Summary::of(&[7.0; 5]).ci95, 0.0);
    }

    #[test]
    fn interquartile_means_worked_by_hand() {
        // n = 8: two cut at each end. n = 5: 1.25 cut, weights 0.75, 1, 0.75 over 2.5. n = 6: 1.5 cut, weights 0.5, 1,
        // 1, 0.5 over 3. n = 1, 2, 3: 0.25, 0.5, 0.75 cut.
        for (sample, iqm) in [
            (vec![80.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -70.0], (2.0 + 3.0 + 4.0 + 5.0) / 4.0),
            (vec![100.0, 10.0, 20.0, 40.0, -1.0], (0.75 * 10.0 + 20.0 + 0.75 * 40.0) / 2.5),
            (vec![6.0, 5.0, 4.0, 2.0, 1.0, 0.0], (0.5 * 1.0 + 2.0 + 4.0 + 0.5 * 5.0) / 3.0),
            (vec![7.0], 7.0),
            (vec![7.0, 9.0], 8.0),
            (vec![0.0, 3.0, 12.0], (0.25 * 0.0 + 3.0 + 0.25 * 12.0) / 1.5),
        ] {
            assert!((interquartile_mean(&sample) - iqm).abs() < 1e-12, "{sample:?}");
        }
        assert!(interquartile_mean(&[]).is_nan());
        // Cut off or not, a NaN is not passed over.
        assert!(interquartile_mean(&[f64::NAN, 1.0, 2.0, 3.0, 4.0]).is_nan());
        assert!(interquartile_mean(&[-f64::NAN, 1.0, 2.0, 3.0, 4.0]).is_nan());
        assert_eq!(interquartile_mean(&[f64::NEG_INFINITY, 1.0, 2.0, 3.0]), 1.5);
    }

    /// All `n^n` resamples of a sample, each equally probable: the exact distribution that the bootstrap approaches.
    fn every_resample(sample: &[f64], statistic: fn(&[f64]) -> f64) -> Vec<f64> {
        let n = sample.len();
        let mut all: Vec<f64> = (0..n.pow(n as u32))
            .map(|code| {
                let picked: Vec<f64> = (0..n).map(|place| sample[code / n.pow(place as u32) % n]).collect();
                statistic(&picked)
            })
            .collect();
        all.sort_unstable_by(f64::total_cmp);
        all
    }

    #[test]
    fn bootstrap_intervals_are_those_of_the_exact_distribution() {
        // Steps of the exact distribution near its ends are 0.2 apart and more: its quantiles are told apart.
        let sample = [1.0, 2.0, 4.0, 8.0, 16.0];
        for statistic in [mean as fn(&[f64]) -> f64, interquartile_mean] {
            let exact = every_resample(&sample, statistic);
            let (low, high) = (quantile_of_sorted(&exact, 0.025), quantile_of_sorted(&exact, 0.975));
            let found = Bootstrap { resamples: 100_000, seed: 7 }.interval(&[&sample], statistic);
            // The share of resamples below a quantile has a standard error of 0.0005 of 100,000: five of them.
            let rank = |value: f64, slack: f64| quantile_of_sorted(&exact, value + slack);
            for (end, share, wanted) in [(found.low, 0.025, low), (found.high, 0.975, high)] {
                let (least, most) = (rank(share, -0.0025), rank(share, 0.0025));
                assert!((least..=most).contains(&end), "{end} against {wanted}, between {least} and {most}");
            }
        }
        // Two scores: the mean is either or the middle with 1/4, 1/4, 1/2.
        let two = Bootstrap::default().interval(&[&[3.0, 5.0]], mean);
        assert_eq!((two.low, two.high), (3.0, 5.0));
    }

    #[test]
    fn coverage_is_the_predicted_one() {
        // The interval of a mean is about mean +- 1.96 sqrt((n - 1) / n) sd / sqrt(n), which covers the true mean with
        // the probability that |t| is below 1.96 sqrt((n - 1) / n).
        let mut noise = Noise::new(11, 0);
        for (n, known) in [(5, 0.85), (10, 0.90), (40, 0.94)] {
            let predicted = share_within(1.96 * ((n - 1) as f64 / n as f64).sqrt(), n - 1);
            assert!((predicted - known).abs() < 0.01, "{predicted}");
            let trials = 2000;
            let covered = (0..trials).filter(|&trial| {
                let mut draws = vec![0.0f32; n];
                noise.gaussian(&mut draws);
                let sample: Vec<f64> = draws.iter().map(|x| 3.0 + 2.0 * f64::from(*x)).collect();
                let found = Bootstrap { resamples: 400, seed: trial }.interval(&[&sample], mean);
                found.low <= 3.0 && 3.0 <= found.high
            });
            let share = covered.count() as f64 / trials as f64;
            // The standard error of 2,000 trials is 0.008 at most; the rest is for the normal approximation at n = 5.
            assert!((share - predicted).abs() < 0.03, "n = {n}: {share} against {predicted}");
        }
    }

    #[test]
    fn strata_are_resampled_each_for_itself() {
        // Between tasks everything differs, within one nothing does: there is nothing to be uncertain about. Drawn from
        // the pool instead, the mean would move between 0 and 100.
        let strata: [&[f64]; 2] = [&[0.0, 0.0, 0.0], &[100.0, 100.0, 100.0]];
        let scores = Scores::stratified(&strata, Bootstrap::default());
        assert_eq!((scores.n, scores.mean, scores.iqm), (6, 50.0, 50.0));
        assert_eq!(scores.mean_interval, Interval { low: 50.0, high: 50.0 });
        assert_eq!((scores.min, scores.max), (0.0, 100.0));
        // The variance of the mean of two strata is a quarter of the sum of theirs.
        let (a, b): (Vec<f64>, Vec<f64>) =
            ((0..40).map(f64::from).collect(), (0..40).map(|i| f64::from(3 * i)).collect());
        let width = |i: Interval| i.high - i.low;
        let alone = [&a, &b].map(|s| width(Bootstrap::default().interval(&[s], mean)));
        let both = width(Bootstrap::default().interval(&[&a, &b], mean));
        let wanted = 0.5 * alone[0].hypot(alone[1]);
        // Ends move by about 2 % of the width; three of those.
        assert!((both / wanted - 1.0).abs() < 0.06, "{both} against {wanted}");
    }

    #[test]
    fn scores_are_reproducible_and_honest_about_what_is_unknown() {
        let sample = [5.0, 1.0, 3.0, 8.0, 2.0];
        assert_eq!(Scores::of(&sample), Scores::of(&sample));
        let mut turned = sample;
        turned.reverse();
        assert_eq!(Scores::of(&sample).iqm, Scores::of(&turned).iqm);
        let one = Scores::of(&[4.0]);
        assert_eq!((one.n, one.mean, one.iqm, one.min, one.max), (1, 4.0, 4.0, 4.0, 4.0));
        assert!(!one.mean_interval.is_known() && !one.iqm_interval.is_known());
        let none = Scores::of(&[]);
        assert!(none.n == 0 && none.mean.is_nan() && none.iqm.is_nan() && none.min.is_nan());
        let damaged = Scores::of(&[1.0, f64::NAN, 2.0]);
        assert!(damaged.mean.is_nan() && damaged.iqm.is_nan() && damaged.min.is_nan() && damaged.max.is_nan());
        assert!(!damaged.mean_interval.is_known());
    }
}
