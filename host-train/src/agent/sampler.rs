//! Policy samples: Euler integration of the velocity network for many states at once.
//!
//! x ~ N(0, I) at `t_min`, equal Euler steps to `t_max`, then a clip of the latent; the action is tanh of it. The state
//! part of the first layer is computed once per state, the time part once per step. States run in tiles of about 512
//! rows. Allocates at construction, and when first asked for more particles than a tile holds.

use crate::config::RfmConfig;
use crate::nn::elementwise::add_scaled;
use crate::nn::velocity::{VelocityNet, VelocityShape, VelocityWork};
use crate::noise::Noise;

/// Rows of one tile, when the particles of a state allow it.
const TILE: usize = 512;

/// The integrator's constants and scratch memory.
#[derive(Clone, Debug)]
pub struct Sampler {
    steps: usize,
    t_min: f32,
    t_max: f32,
    latent_clip: f32,
    work: VelocityWork,
    states: Vec<f32>,
    times: Vec<f32>,
}

impl Sampler {
    /// The sampler of a configuration, with room for one tile.
    pub fn new(config: &RfmConfig, shape: &VelocityShape) -> Self {
        Self {
            steps: config.integration_steps,
            t_min: config.t_min as f32,
            t_max: config.t_max as f32,
            latent_clip: config.latent_clip as f32,
            work: VelocityWork::new(shape, TILE),
            states: vec![0.0; TILE * shape.hidden.width],
            times: vec![0.0; config.integration_steps * shape.hidden.width],
        }
    }

    /// Draws `particles` latents for each of the states `s` into `u`, `n x particles x act`.
    pub fn sample(&mut self, net: &VelocityNet, s: &[f32], particles: usize, u: &mut [f32], noise: &mut Noise) {
        noise.gaussian(u);
        self.integrate(net, s, particles, u);
    }

    /// Carries the source samples in `u` to latents, in place.
    pub fn integrate(&mut self, net: &VelocityNet, s: &[f32], particles: usize, u: &mut [f32]) {
        let (obs, act, width) = (net.shape().obs, net.shape().act, net.shape().hidden.width);
        if particles > self.work.rows() {
            self.work = VelocityWork::new(net.shape(), particles);
        }
        let dt = (self.t_max - self.t_min) / self.steps as f32;
        for (i, time) in self.times.chunks_exact_mut(width).enumerate() {
            net.time_part(self.t_min + i as f32 * dt, time);
        }
        if net.integrate(s, particles, u, &self.times, dt, self.latent_clip, &mut self.work) {
            return;
        }
        let tile = (TILE / particles).max(1);
        for (s, u) in s.chunks(tile * obs).zip(u.chunks_mut(tile * particles * act)) {
            let states = &mut self.states[..s.len() / obs * width];
            net.state_part(s, states, &mut self.work);
            for time in self.times.chunks_exact(width) {
                let v = net.velocities(u, states, time, particles, &mut self.work);
                add_scaled(u, dt, v);
            }
            u.iter_mut().for_each(|u| *u = u.clamp(-self.latent_clip, self.latent_clip));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::rfm::velocity_shape;

    /// Tiles, groups and cached parts against one point at a time and a plain Euler loop.
    #[test]
    fn tiles_equal_single_points() {
        let config = RfmConfig { integration_steps: 4, t_min: 0.1, t_max: 0.9, ..RfmConfig::standard() };
        let shape = velocity_shape(&config, 3, 2);
        let mut noise = Noise::new(1, 0);
        let net = VelocityNet::new(shape.clone(), 1.4, 3.0, &mut noise);
        // 100 states by 6 particles: 85 states to a tile, so two tiles.
        let (n, particles) = (100, 6);
        let (mut s, mut start) = (vec![0.0; n * 3], vec![0.0; n * particles * 2]);
        noise.gaussian(&mut s);
        noise.gaussian(&mut start);
        let mut all = start.clone();
        Sampler::new(&config, &shape).integrate(&net, &s, particles, &mut all);
        let mut work = VelocityWork::new(&shape, 1);
        let (mut state, mut time) = (vec![0.0; 64], vec![0.0; 64]);
        for (r, x) in start.chunks_exact_mut(2).enumerate() {
            let at = r / particles * 3;
            net.state_part(&s[at..at + 3], &mut state, &mut work);
            for i in 0..4 {
                net.time_part(0.1 + 0.2 * i as f32, &mut time);
                let v = net.velocities(x, &state, &time, 1, &mut work).to_vec();
                x.iter_mut().zip(v).for_each(|(x, v)| *x += 0.2 * v);
            }
            for (a, b) in x.iter().zip(&all[r * 2..]) {
                assert!((a.clamp(-6.0, 6.0) - b).abs() < 1e-5, "{r}: {a} {b}");
            }
        }
    }

    #[test]
    fn latents_are_clipped_and_many_particles_fit() {
        let config = RfmConfig { latent_clip: 0.5, ..RfmConfig::standard() };
        let shape = velocity_shape(&config, 3, 2);
        let net = VelocityNet::new(shape.clone(), 1.4, 0.1, &mut Noise::new(1, 0));
        let mut u = vec![0.0; 1000 * 2];
        Sampler::new(&config, &shape).sample(&net, &[0.1, 0.2, 0.3], 1000, &mut u, &mut Noise::new(2, 0));
        assert!(u.iter().all(|u| u.abs() <= 0.5));
        assert!(u.iter().any(|u| u.abs() == 0.5));
    }
}
