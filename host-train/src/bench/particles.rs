//! Particles for the default: samples of a small flow that the default itself has trained on the target.
//!
//! As in learning: points on the path from the flow's own samples (three of four) and from uniform actions (one of
//! four), the default's velocity targets at them with 32 evaluations each and 32 of the flow's particles (none in the
//! first round), and regression. Rounds of that, each with new samples, so the flow pulls itself up; no exact draw is
//! used. These evaluations are not counted in the K of an estimate, as a learner would make them anyway. Deterministic
//! given the seed. Cost: about a second a target.

use super::contenders::{Memory, auto};
use super::targets::Known;
use crate::Result;
use crate::agent::rfm::velocity_shape;
use crate::agent::sampler::Sampler;
use crate::config::RfmConfig;
use crate::nn::optim::Adam;
use crate::nn::velocity::{VelocityNet, VelocityWork};
use crate::noise::Noise;

/// Particles of an estimate.
pub const PARTICLES: usize = 32;
/// Euler steps of a sample.
pub const STEPS: usize = 10;
/// Evaluations of Q for a regression target.
pub const TRAINING_SAMPLES: usize = 32;
/// Rounds of new targets.
pub const ROUNDS: usize = 8;
/// Targets of a round.
pub const POINTS: usize = 1024;
/// Regression steps of a round, over the points of the last two rounds.
pub const UPDATES: usize = 150;
/// Points of a regression step.
const BATCH: usize = 128;

/// Evaluations of Q that training a flow takes.
pub const fn training_evaluations() -> usize {
    ROUNDS * POINTS * TRAINING_SAMPLES
}

/// Trains a flow for `target` and draws `count` latents of `dim` from it.
pub fn of_trained_flow(target: &mut Known, dim: usize, count: usize, noise: &mut Noise) -> Result<Vec<f32>> {
    let config = RfmConfig { integration_steps: STEPS, ..RfmConfig::standard() };
    let shape = velocity_shape(&config, 1, dim);
    let mut net = VelocityNet::new(shape.clone(), std::f32::consts::SQRT_2, config.actor_out_gain as f32, noise);
    let mut adam = Adam::new(net.params().len(), config.train.policy_lr as f32, 0.0);
    let mut gradient = vec![0.0; net.params().len()];
    let mut work = VelocityWork::new(&shape, BATCH);
    let mut sampler = Sampler::new(&config, &shape);
    let mut memory = Memory::new(dim, TRAINING_SAMPLES);
    let mut pool = Pool::new(dim);
    let mut latents = vec![0.0; POINTS * dim];
    for round in 0..ROUNDS {
        // There is one state, whose only component is zero.
        sampler.sample(&net, &[0.0], POINTS, &mut latents, noise);
        pool.refill(round, &latents, target, &mut memory, noise)?;
        for _ in 0..UPDATES {
            pool.batch(noise);
            net.regress(&[0.0; BATCH], &pool.x, &pool.t, &pool.velocity, &mut work, &mut gradient);
            adam.step(net.params_mut(), &mut gradient);
        }
    }
    let mut particles = vec![0.0; count * dim];
    sampler.sample(&net, &[0.0], count, &mut particles, noise);
    Ok(particles)
}

/// The points and targets of the last two rounds, and a batch of them.
struct Pool {
    dim: usize,
    filled: usize,
    all_t: Vec<f32>,
    all_x: Vec<f32>,
    all_velocity: Vec<f32>,
    t: Vec<f32>,
    x: Vec<f32>,
    velocity: Vec<f32>,
}

impl Pool {
    fn new(dim: usize) -> Self {
        let rows = |n: usize| vec![0.0; n * dim];
        Self {
            dim,
            filled: 0,
            all_t: vec![0.0; 2 * POINTS],
            all_x: rows(2 * POINTS),
            all_velocity: rows(2 * POINTS),
            t: vec![0.0; BATCH],
            x: rows(BATCH),
            velocity: rows(BATCH),
        }
    }

    /// Replaces the older half by new points and the default's targets at them.
    fn refill(
        &mut self,
        round: usize,
        latents: &[f32],
        target: &mut Known,
        memory: &mut Memory,
        noise: &mut Noise,
    ) -> Result<()> {
        let dim = self.dim;
        let (mut x, mut mean, mut wide) = (vec![0.0; dim], vec![0.0; dim], vec![0.0; dim]);
        let config = auto(TRAINING_SAMPLES);
        for (i, latent) in latents.chunks_exact(dim).enumerate() {
            let end = if i % 4 == 3 {
                noise.uniform_in(&mut wide, -0.9999, 0.9999);
                wide.iter_mut().for_each(|a| *a = a.atanh());
                &wide
            } else {
                latent
            };
            let t = 0.01 + 0.98 * noise.uniform();
            noise.gaussian(&mut x);
            x.iter_mut().zip(end).for_each(|(x, u)| *x = t * u + (1.0 - t) * *x);
            let first = noise.below(POINTS - PARTICLES + 1) * dim;
            let particles = if round == 0 { &[] } else { &latents[first..first + PARTICLES * dim] };
            memory.estimate(&config, t, &x, target, particles, noise, &mut mean)?;
            let row = (round % 2 * POINTS + i) * dim;
            self.all_t[round % 2 * POINTS + i] = t;
            self.all_x[row..row + dim].copy_from_slice(&x);
            let velocity = self.all_velocity[row..row + dim].iter_mut();
            velocity.zip(&mean).zip(&x).for_each(|((v, m), x)| *v = (m - x) / (1.0 - t));
        }
        self.filled = (self.filled + POINTS).min(2 * POINTS);
        Ok(())
    }

    /// Draws a batch.
    fn batch(&mut self, noise: &mut Noise) {
        let dim = self.dim;
        for b in 0..BATCH {
            let i = noise.below(self.filled);
            self.t[b] = self.all_t[i];
            self.x[b * dim..(b + 1) * dim].copy_from_slice(&self.all_x[i * dim..(i + 1) * dim]);
            self.velocity[b * dim..(b + 1) * dim].copy_from_slice(&self.all_velocity[i * dim..(i + 1) * dim]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::targets::{GaussianMixture, Separable};

    /// The flow's samples have the target's mean, which is the posterior mean where nothing is known of X_1.
    #[test]
    fn a_trained_flow_lies_where_the_target_lies() {
        let mut noise = Noise::new(5, 0);
        for mut target in [
            Known::Separable(Separable::random(2, 0.1, &mut noise)),
            Known::Mixture(GaussianMixture::random(2, 0.1, &mut noise)),
        ] {
            let particles = of_trained_flow(&mut target, 2, 4096, &mut noise).unwrap();
            let mut exact = [0.0; 2];
            target.posterior_mean(1e-6, &[0.0; 2], &mut exact);
            let (mut spread, mut draw) = ([0.0; 2], [0.0; 2]);
            for _ in 0..4096 {
                target.draw(&mut noise, &mut draw);
                spread.iter_mut().zip(draw).zip(exact).for_each(|((s, u), m)| *s += (u - m) * (u - m) / 4096.0);
            }
            for j in 0..2 {
                let column = || particles.iter().skip(j).step_by(2).map(|u| f64::from(*u));
                let mean = column().sum::<f64>() / 4096.0;
                let own = (column().map(|u| (u - mean) * (u - mean)).sum::<f64>() / 4096.0).sqrt();
                let sd = spread[j].sqrt();
                // A flow of 64 x 64 after 1200 steps and ten Euler steps is no exact sampler: a third of a standard
                // deviation, where the untrained flow (mean 0, deviation 1) is off by more on some axis of each.
                println!("{j}: mean {mean:.3} exact {:.3}, deviation {own:.3} exact {sd:.3}", exact[j]);
                assert!((mean - exact[j]).abs() < 0.3 * sd, "mean {mean} exact {}", exact[j]);
                assert!((own / sd).ln().abs() < 0.3, "deviation {own} exact {sd}");
            }
        }
    }
}
