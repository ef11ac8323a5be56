//! The observation normaliser while training: clamp((o - mean) scale, -clip, clip).
//!
//! Its means and scales are given, or fitted: then they follow the running mean and deviation of every observation so
//! far (Welford's sums), taken into use at each [`Normaliser::refresh`]. The replay buffer keeps raw observations, so a
//! minibatch is always normalised by today's numbers; the export takes the last ones. No panics; nothing allocates
//! after construction. Deterministic.

use crate::config::{EnvConfig, NormaliserRule};
use crate::nn::math::vectorised;
use crate::state::Visitor;

/// The given numbers count for as much as this many observations.
const PRIOR: f64 = 10.0;
/// A channel that hardly moves is not blown up beyond this.
const LARGEST_SCALE: f64 = 1e3;

/// Means and scales of the observation channels.
#[derive(Clone, Debug)]
pub struct Normaliser {
    mean: Vec<f32>,
    scale: Vec<f32>,
    clip: f32,
    fit: Option<Fit>,
}

/// Welford's sums: count, means, sums of squared deviations.
#[derive(Clone, Debug)]
struct Fit {
    count: f64,
    mean: Vec<f64>,
    squares: Vec<f64>,
}

impl Normaliser {
    /// The normaliser of a configuration.
    pub fn new(config: &EnvConfig) -> Self {
        let fit = (config.normaliser == NormaliserRule::Fitted).then(|| Fit {
            count: PRIOR,
            mean: config.obs_mean.iter().map(|&m| f64::from(m)).collect(),
            squares: config.obs_scale.iter().map(|&s| PRIOR / f64::from(s).powi(2)).collect(),
        });
        Self { mean: config.obs_mean.clone(), scale: config.obs_scale.clone(), clip: config.obs_clip, fit }
    }

    /// One that changes nothing.
    pub fn identity(channels: usize) -> Self {
        Self { mean: vec![0.0; channels], scale: vec![1.0; channels], clip: f32::MAX, fit: None }
    }

    /// Mean of each channel.
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// Factor on each channel.
    pub fn scale(&self) -> &[f32] {
        &self.scale
    }

    /// Takes note of an observation.
    pub fn observe(&mut self, obs: &[f32]) {
        let Some(fit) = &mut self.fit else { return };
        fit.count += 1.0;
        for ((mean, square), &o) in fit.mean.iter_mut().zip(&mut fit.squares).zip(obs) {
            let off = f64::from(o) - *mean;
            *mean += off / fit.count;
            *square += off * (f64::from(o) - *mean);
        }
    }

    /// Takes the observations so far into use.
    pub fn refresh(&mut self) {
        let Some(fit) = &self.fit else { return };
        let sums = fit.mean.iter().zip(&fit.squares);
        for ((mean, scale), (m, s)) in self.mean.iter_mut().zip(&mut self.scale).zip(sums) {
            *mean = *m as f32;
            *scale = (fit.count / s.max(f64::MIN_POSITIVE)).sqrt().min(LARGEST_SCALE) as f32;
        }
    }

    /// Normalises rows of observations in place.
    pub fn apply(&self, rows: &mut [f32]) {
        let (mean, scale, clip) = (&self.mean[..], &self.scale[..], self.clip);
        vectorised(|| {
            for row in rows.chunks_exact_mut(mean.len()) {
                for ((o, mean), scale) in row.iter_mut().zip(mean).zip(scale) {
                    *o = ((*o - mean) * scale).clamp(-clip, clip);
                }
            }
        });
    }

    /// Shows the numbers in use and the sums of the fit.
    pub fn visit(&mut self, visitor: &mut dyn Visitor) {
        visitor.f32s("normaliser.mean", &mut self.mean);
        visitor.f32s("normaliser.scale", &mut self.scale);
        if let Some(fit) = &mut self.fit {
            visitor.f64s("normaliser.count", std::slice::from_mut(&mut fit.count));
            visitor.f64s("normaliser.sum_mean", &mut fit.mean);
            visitor.f64s("normaliser.sum_squares", &mut fit.squares);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::noise::Noise;

    fn config(rule: NormaliserRule) -> EnvConfig {
        let mut env = Config::preset("default", "rfm", "pendulum").unwrap().env;
        env.normaliser = rule;
        env
    }

    /// Oracle: the sums in closed form, the given numbers standing for ten observations more.
    #[test]
    fn a_fit_follows_mean_and_deviation() {
        let env = config(NormaliserRule::Fitted);
        let mut normaliser = Normaliser::new(&env);
        let mut noise = Noise::new(1, 0);
        let (n, mut raw, mut rows) = (10_000, [0.0; 3], Vec::new());
        for _ in 0..n {
            noise.gaussian(&mut raw);
            let obs = [5.0 + 2.0 * raw[0], -1.0 + 0.1 * raw[1], 300.0];
            normaliser.observe(&obs);
            rows.extend_from_slice(&obs);
        }
        normaliser.refresh();
        for channel in 0..3 {
            let (first, scale) = (f64::from(env.obs_mean[channel]), f64::from(env.obs_scale[channel]));
            let count = PRIOR + f64::from(n);
            let sum = |f: fn(f64) -> f64| rows.chunks(3).map(|row| f(f64::from(row[channel]))).sum::<f64>();
            let mean = (PRIOR * first + sum(|x| x)) / count;
            let variance = (PRIOR * (scale.powi(-2) + first * first) + sum(|x| x * x)) / count - mean * mean;
            let (got, want) = (f64::from(normaliser.scale()[channel]), variance.sqrt().recip());
            assert!((f64::from(normaliser.mean()[channel]) - mean).abs() < 1e-5 * mean.abs().max(1.0), "{channel}");
            assert!((got / want - 1.0).abs() < 1e-4, "{channel}: {got} {want}");
        }
        let raw = rows[..3].to_vec();
        normaliser.apply(&mut rows);
        let want = (raw[0] - normaliser.mean()[0]) * normaliser.scale()[0];
        assert!((rows[0] - want).abs() < 1e-6 && rows.iter().all(|x| x.is_finite()));
    }

    #[test]
    fn given_numbers_stay() {
        let env = config(NormaliserRule::Given);
        let mut normaliser = Normaliser::new(&env);
        (0..100).for_each(|_| normaliser.observe(&[9.0; 3]));
        normaliser.refresh();
        assert_eq!((normaliser.mean(), normaliser.scale()), (&env.obs_mean[..], &env.obs_scale[..]));
        let mut row = [1.0, -1.0, 1e9];
        normaliser.apply(&mut row);
        assert_eq!(row[2], env.obs_clip);
        let mut same = [1.5, -2.5];
        Normaliser::identity(2).apply(&mut same);
        assert_eq!(same, [1.5, -2.5]);
    }
}
