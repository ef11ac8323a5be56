//! What a run has learnt, as a teacher of policies that need one step: its flow in ten Euler steps, its slow critics, its
//! temperature, and the states it has met.
//!
//! Networks are the exported ones. Panics only on slices of a wrong length; nothing allocates after construction but the
//! list of states. Deterministic.

use crate::agent::rfm::Rfm;
use crate::agent::sampler::Sampler;
use crate::agent::{critic_shape, velocity_shape};
use crate::config::RfmConfig;
use crate::nn::critic::TwinCritic;
use crate::nn::velocity::{VelocityNet, VelocityShape};
use crate::noise::Noise;
use crate::normaliser::Normaliser;
use crate::replay::{Minibatch, Replay};
use crate::transitions::Recorded;
use crate::{Error, Result};

/// Euler steps of the flow that is the measure of all others.
pub const STEPS: usize = 10;

/// A trained flow with its critics.
#[derive(Clone, Debug)]
pub struct Teacher {
    /// The velocity network, constant features folded in.
    pub net: VelocityNet,
    /// The slow critics.
    pub critic: TwinCritic,
    /// The temperature.
    pub lambda: f32,
    /// The constants of the run.
    pub config: RfmConfig,
    flow: Sampler,
}

impl Teacher {
    /// Of an agent.
    pub fn of(agent: &Rfm) -> Result<Self> {
        let mut config = agent.config().clone();
        let VelocityShape { obs, act, .. } = *agent.actor().shape();
        let shape = VelocityShape { constant: Vec::new(), ..velocity_shape(&config, obs, act) };
        let mut net = VelocityNet::new(shape, 1.0, 1.0, &mut Noise::new(0, 0));
        if !net.import(&agent.actor_params(), net.shape().frequencies.len()) {
            return Err(Error::failure("the run's policy is not of the size that its configuration tells"));
        }
        let mut critic = TwinCritic::new(critic_shape(&config.train, obs, act), 1.0, &mut Noise::new(0, 0));
        critic.params_mut().copy_from_slice(&[agent.critic_params(0), agent.critic_params(1)].concat());
        config.integration_steps = STEPS;
        Ok(Self { flow: Sampler::new(&config, net.shape()), net, critic, lambda: agent.lambda(), config })
    }

    /// Carries noise `u` to latents in place, a row for each of the states `s`.
    pub fn carry(&mut self, s: &[f32], u: &mut [f32]) {
        self.flow.integrate(&self.net, s, 1, u);
    }
}

/// A sampler that carries noise to latents by networks of `shape` in one Euler step.
pub fn one_step(config: &RfmConfig, shape: &VelocityShape) -> Sampler {
    Sampler::new(&RfmConfig { integration_steps: 1, t_min: 0.0, t_max: 1.0, ..config.clone() }, shape)
}

/// Normalised states to learn at: half of them from the run's replay buffer, half from episodes played since.
#[derive(Clone, Debug)]
pub struct States<'a> {
    replay: &'a Replay,
    played: Vec<f32>,
    batch: Minibatch,
}

impl<'a> States<'a> {
    /// With nothing played yet, for batches of `n` states.
    pub fn new(replay: &'a Replay, n: usize, act: usize) -> Self {
        let obs = replay.normaliser().mean().len();
        Self { replay, played: Vec::new(), batch: Minibatch::new(n, obs, act) }
    }

    /// Takes note of the states of episodes.
    pub fn add(&mut self, rows: &[Recorded]) {
        let from = self.played.len();
        rows.iter().for_each(|row| self.played.extend_from_slice(&row.obs));
        self.normaliser().clone().apply(&mut self.played[from..]);
    }

    /// The run's normaliser.
    pub fn normaliser(&self) -> &Normaliser {
        self.replay.normaliser()
    }

    /// The states played so far.
    pub fn played(&self) -> &[f32] {
        &self.played
    }

    /// A batch, drawn with replacement.
    pub fn draw(&mut self, noise: &mut Noise) -> &[f32] {
        self.replay.sample(&mut self.batch, noise);
        let obs = self.replay.normaliser().mean().len();
        let count = self.played.len() / obs;
        if count > 0 {
            let rows = self.batch.obs.chunks_exact_mut(obs);
            for row in rows.step_by(2) {
                let at = noise.below(count) * obs;
                row.copy_from_slice(&self.played[at..at + obs]);
            }
        }
        &self.batch.obs
    }
}
