//! One latent per state: several policy samples, and the choice of one by the critics.
//!
//! A single sample needs no critic. Of several, [`Pick::Softmax`] draws one with probability proportional to
//! exp(min Q / lambda), which is how the agent behaves; [`Pick::Best`] takes the largest min Q. Deterministic given
//! the stream; allocates only when given more states or particles than ever before.

use super::room;
use super::sampler::Sampler;
use crate::config::RfmConfig;
use crate::nn::critic::{CriticShape, CriticWork, TwinCritic};
use crate::nn::elementwise::{softmax, tanh_of};
use crate::nn::velocity::{VelocityNet, VelocityShape};
use crate::noise::Noise;

/// How one of several particles is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pick {
    /// With probability proportional to exp(min Q / temperature).
    Softmax {
        /// Lambda.
        temperature: f32,
    },
    /// The one with the largest min Q.
    Best,
}

/// Sampler, critic buffers and scratch memory of the choice.
#[derive(Clone, Debug)]
pub struct Selector {
    sampler: Sampler,
    critic_work: CriticWork,
    critic_group: usize,
    latents: Vec<f32>,
    actions: Vec<f32>,
    q: Vec<f32>,
}

impl Selector {
    /// For up to `particles` samples of a state.
    pub fn new(config: &RfmConfig, velocity: &VelocityShape, critic: &CriticShape, particles: usize) -> Self {
        Self {
            sampler: Sampler::new(config, velocity),
            critic_work: CriticWork::new(critic, 1, particles),
            critic_group: particles,
            latents: Vec::new(),
            actions: Vec::new(),
            q: Vec::new(),
        }
    }

    /// Writes one latent for each of the states `s` into `out`, chosen from `particles`.
    #[expect(clippy::too_many_arguments, reason = "networks and request are separate on purpose")]
    pub fn draw(
        &mut self,
        actor: &VelocityNet,
        critic: &TwinCritic,
        s: &[f32],
        particles: usize,
        pick: Pick,
        noise: &mut Noise,
        out: &mut [f32],
    ) {
        if particles == 1 {
            self.sampler.sample(actor, s, 1, out, noise);
            return;
        }
        if particles > self.critic_group {
            (self.critic_work, self.critic_group) = (CriticWork::new(critic.shape(), 1, particles), particles);
        }
        let act = actor.shape().act;
        let n = out.len() / act;
        let latents = room(&mut self.latents, n * particles * act);
        self.sampler.sample(actor, s, particles, latents, noise);
        let actions = room(&mut self.actions, n * particles * act);
        tanh_of(actions, latents);
        let q = room(&mut self.q, n * particles);
        critic.minimum(s, actions, particles, q, &mut self.critic_work);

        let each = out.chunks_exact_mut(act).zip(latents.chunks_exact(particles * act));
        for ((out, latents), q) in each.zip(q.chunks_exact_mut(particles)) {
            let chosen = match pick {
                Pick::Softmax { temperature } => {
                    q.iter_mut().for_each(|q| *q /= temperature);
                    softmax(q);
                    draw_index(q, noise.uniform())
                }
                Pick::Best => (1..particles).fold(0, |best, i| if q[i] > q[best] { i } else { best }),
            };
            out.copy_from_slice(&latents[chosen * act..(chosen + 1) * act]);
        }
    }
}

/// The index at which the running sum of `probabilities` passes `u`.
fn draw_index(probabilities: &[f32], u: f32) -> usize {
    let mut sum = 0.0;
    for (i, p) in probabilities.iter().enumerate() {
        sum += p;
        if u < sum {
            return i;
        }
    }
    // The sum may round to less than one.
    probabilities.len() - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{critic_shape, velocity_shape};

    #[test]
    fn the_softmax_follows_its_probabilities() {
        let p = [0.1, 0.0, 0.6, 0.3];
        let mut noise = Noise::new(1, 0);
        let mut counts = [0.0_f64; 4];
        (0..100_000).for_each(|_| counts[draw_index(&p, noise.uniform())] += 1e-5);
        for (c, p) in counts.iter().zip(p) {
            assert!((c - f64::from(p)).abs() < 0.01, "{counts:?}");
        }
        assert_eq!(draw_index(&[0.5, 0.499_999], 0.999_999_9), 1);
    }

    /// Best of 64 has a higher Q than the softmax, and that a higher one than a single sample; a single sample equals
    /// the sampler's own.
    #[test]
    fn choices_are_ordered_by_q() {
        let config = RfmConfig::standard();
        let (velocity, critic) = (velocity_shape(&config, 3, 2), critic_shape(&config.train, 3, 2));
        let mut noise = Noise::new(2, 0);
        let actor = VelocityNet::new(velocity.clone(), 1.4, 0.1, &mut noise);
        let critics = TwinCritic::new(critic, 1.4, &mut noise);
        let n = 200;
        let mut s = vec![0.0; n * 3];
        noise.gaussian(&mut s);
        let mut selector = Selector::new(&config, &velocity, &critic, 64);
        let mut mean_q = |particles: usize, pick: Pick| {
            let mut u = vec![0.0; n * 2];
            selector.draw(&actor, &critics, &s, particles, pick, &mut Noise::new(3, 1), &mut u);
            let (mut a, mut q) = (u.clone(), vec![0.0; n]);
            tanh_of(&mut a, &u);
            critics.minimum(&s, &a, 1, &mut q, &mut CriticWork::new(&critic, 1, 1));
            q.iter().sum::<f32>() / n as f32
        };
        let single = mean_q(1, Pick::Best);
        let warm = mean_q(64, Pick::Softmax { temperature: 0.05 });
        let best = mean_q(64, Pick::Best);
        assert!(single + 0.05 < warm && warm + 0.05 < best, "{single} {warm} {best}");

        let (mut a, mut b) = (vec![0.0; n * 2], vec![0.0; n * 2]);
        selector.draw(&actor, &critics, &s, 1, Pick::Best, &mut Noise::new(4, 0), &mut a);
        Sampler::new(&config, &velocity).sample(&actor, &s, 1, &mut b, &mut Noise::new(4, 0));
        assert_eq!(a, b);
    }
}
