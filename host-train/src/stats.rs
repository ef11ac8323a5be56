//! Summary of a sample: mean, standard deviation and the 95 % interval of the mean by Student's t.
//!
//! Pure; no panics. An interval of fewer than two numbers is not known and comes out as NaN, as does everything of
//! none. The returns of a policy are not normal: the interval is the usual approximation, nothing more.

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
}
