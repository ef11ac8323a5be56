//! Reverse score matching with a network: the score of the path for any source, and sampling with it.
//!
//! A flow is trained first; a second network learns `grad ln p_t` from flowlet's score estimates at points of the same
//! path. With a Gaussian source the velocity follows from that score; with any other the two are not affinely related,
//! and the reverse SDE `dX = (v + sigma^2 score / 2) dt + sigma dW` needs both networks. Deterministic given the seed.
//!
//! Cost: two trainings; sampling evaluates both networks at every step of the SDE.

use super::energy::Toy;
use super::method::{Method, TIMES};
use super::train::{Budget, Model, diverged, train, train_score};
use crate::Result;
use crate::noise::Noise;
use flowlet::flow::{Prediction, Reverse, ReverseMethod, SdeNoise, Source};

/// A flow and the score of its path.
#[derive(Clone, Debug)]
pub struct ScoreModel {
    source: Source,
    /// The velocity network.
    pub flow: Model,
    /// The score network.
    pub score: Model,
}

/// Flow time at which the ODE begins that takes its velocity from the score.
const SCORE_START: f32 = 0.05;

/// Steps of the reverse SDE.
pub const SDE_STEPS: usize = 100;

impl ScoreModel {
    /// Trains both networks.
    pub fn train(source: Source, toy: Toy, budget: &Budget, seed: u64) -> Result<Self> {
        let mut flow = train(Method::Rfm, source, toy, budget, seed)?;
        let score = train_score(&mut flow, source, toy, budget, seed)?;
        Ok(Self { source, flow, score })
    }

    /// Samples along the probability-flow ODE, `n x 2`. A Gaussian source takes the velocity from the score.
    pub fn sample_ode(&mut self, n: usize, noise: &mut Noise) -> Result<Vec<f32>> {
        let sampler = Method::Rfm.sampler(self.source);
        if self.source != Source::Gaussian {
            return self.flow.sample(&sampler, n, noise);
        }
        // The velocity of a score divides by alpha, so the score's error is multiplied by 1 / t at the start.
        let (t_start, t_end) = (SCORE_START, TIMES.1);
        self.score.sample(&Reverse { prediction: Prediction::Score, t_start, t_end, ..sampler }, n, noise)
    }

    /// Samples by the reverse SDE, `n x 2`.
    pub fn sample_sde(&mut self, n: usize, noise: &mut Noise) -> Result<Vec<f32>> {
        let sampler = Reverse {
            method: ReverseMethod::EulerMaruyama(SdeNoise::Beta { scale: 1.0 }),
            steps: SDE_STEPS,
            ..Method::Rfm.sampler(self.source)
        };
        let (mut x, mut scratch) = (vec![0.0; 2 * n], vec![0.0; Reverse::scratch_len(2 * n)]);
        sampler.start(noise.rng(), &mut x);
        let mut velocity = |t: f32, x: &[f32], out: &mut [f32]| self.flow.predict(t, x, out);
        let mut score = |t: f32, x: &[f32], out: &mut [f32]| self.score.predict(t, x, out);
        sampler.run_with_score(&mut velocity, &mut score, noise.rng(), &mut x, &mut scratch).map_err(diverged)?;
        Ok(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toy::metrics::Judge;
    use std::f64::consts::{FRAC_PI_4, PI};

    /// `ln` of the density of `x = t y + (1 - t) z` in one component, up to a constant, for `y` normal around `centre`.
    type Marginal = fn(t: f64, x: f64, centre: f64) -> f64;

    /// Standard deviation and radius of the eight Gaussians.
    const WIDTH: f64 = 0.14;
    const CIRCLE: f64 = 1.4;

    fn gaussian(t: f64, x: f64, centre: f64) -> f64 {
        let variance = (t * WIDTH).powi(2) + (1.0 - t).powi(2);
        -0.5 * (x - t * centre).powi(2) / variance
    }

    /// By the midpoint rule over the normal's +-7 standard deviations: the kink of the Laplace density in a cell of
    /// 0.7 % of a standard deviation leaves an error below 1e-5.
    fn laplace(t: f64, x: f64, centre: f64) -> f64 {
        let cells = 2000;
        let sum: f64 = (0..cells)
            .map(|i| {
                let z = (f64::from(i) + 0.5) / f64::from(cells) * 14.0 - 7.0;
                (-0.5 * z * z - ((x - t * (centre + WIDTH * z)) / (1.0 - t)).abs()).exp()
            })
            .sum();
        sum.ln()
    }

    /// The score of the path under the eight Gaussians, whose components factorise over the axes.
    fn exact_score(marginal: Marginal, t: f64, x: [f64; 2]) -> [f64; 2] {
        let log_density = |x: [f64; 2]| {
            let terms = (0..8).map(|i| {
                let (sin, cos) = (f64::from(i) * FRAC_PI_4).sin_cos();
                marginal(t, x[0], CIRCLE * cos) + marginal(t, x[1], CIRCLE * sin)
            });
            terms.map(f64::exp).sum::<f64>().ln()
        };
        // A central difference; third derivatives of the blurred density are below 1e4, so its error is below 2e-3.
        let h = 1e-3;
        [0, 1].map(|axis| {
            let at = |step: f64| {
                let mut moved = x;
                moved[axis] += step;
                log_density(moved)
            };
            (at(h) - at(-h)) / (2.0 * h)
        })
    }

    #[test]
    fn learnt_scores_are_those_of_the_path_and_sample_the_toy() {
        let budget = Budget { updates: 800, batch: 128, candidates: 16, width: 64, layers: 3 };
        let toy = Toy::EightGaussians;
        let mut noise = Noise::new(9, 0);
        let judge = Judge::new(toy, 4096, &mut noise);
        for (source, marginal) in [(Source::Gaussian, gaussian as Marginal), (Source::Laplace, laplace)] {
            let mut model = ScoreModel::train(source, toy, &budget, 1).unwrap();
            let (mut error, mut size) = (0.0, 0.0);
            for i in 0..300 {
                let t = 0.05 + 0.9 * (i as f32 + 0.5) / 300.0;
                // A point of the path: a target sample with noise.
                let angle = f64::from(noise.below(8) as u32) * FRAC_PI_4;
                let (mut y, mut e) = ([0.0; 2], [0.0; 2]);
                noise.gaussian(&mut y);
                source.sample(noise.rng(), &mut e);
                let centre = [CIRCLE * angle.cos(), CIRCLE * angle.sin()];
                let x = [0, 1].map(|j| t * (centre[j] as f32 + WIDTH as f32 * y[j]) + (1.0 - t) * e[j]);
                let mut got = [0.0; 2];
                model.score.predict(t, &x, &mut got);
                let want = exact_score(marginal, f64::from(t), x.map(f64::from));
                for (got, want) in got.iter().zip(want) {
                    let beta = 1.0 - f64::from(t);
                    error += (beta * (f64::from(*got) - want)).powi(2);
                    size += (beta * want).powi(2);
                }
            }
            let share = error / size;
            let flow = judge.measure(&model.flow.sample(&Method::Rfm.sampler(source), 4096, &mut noise).unwrap());
            let ode = judge.measure(&model.sample_ode(4096, &mut noise).unwrap());
            let sde = judge.measure(&model.sample_sde(4096, &mut noise).unwrap());
            assert!(share < 0.1, "{source:?}: {share} of the score's square is missed");
            for way in [&ode, &sde] {
                assert!(way.sliced_wasserstein < flow.sliced_wasserstein + 0.05, "{source:?} {way:?} {flow:?}");
            }
        }
        assert!(exact_score(laplace, 0.5, [0.3, PI / 10.0]).iter().all(|s| s.is_finite()));
    }
}
