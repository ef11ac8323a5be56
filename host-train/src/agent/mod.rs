//! The algorithms and their parts: policy samples, choice among them, posterior mean, and the updates themselves.
//!
//! An algorithm is an [`Agent`], one file each over shared parts; read [`rfm`] first, top to bottom. Everything works on
//! normalised observations and squashed actions, in batches, allocates at construction (or when first given more states
//! than before), and takes its randomness from numbered streams of one seed: the same seed on the same machine gives the
//! same bits.

pub mod batch;
pub mod critics;
pub mod diffusion;
pub mod dqs;
pub mod posterior;
pub mod qne;
pub mod qsm;
pub mod qvpo;
pub mod rfm;
pub mod sac;
pub mod sampler;
pub mod select;

use crate::config::{Algorithm, RfmConfig, TrainConfig, Trunk};
use crate::nn::critic::CriticShape;
use crate::nn::hidden::Hidden;
use crate::nn::velocity::VelocityShape;
use crate::noise::Noise;
use crate::replay::Replay;
use crate::state::Visitor;
use crate::{Error, Result};
use flowlet::policy::Artefact;

/// Streams of the seed that agents use; the training loop uses others.
const STREAM_WEIGHTS: u64 = 0;
const STREAM_BEHAVIOUR: u64 = 1;
const STREAM_UPDATES: u64 = 2;

/// What one update reports; NaN where an algorithm has no such number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct UpdateStats {
    /// Sum over both critics of the mean squared error.
    pub critic_loss: f32,
    /// Mean squared error of the velocity or the noise, weighted where the algorithm weighs; for `sac` its objective. Of a
    /// delayed actor, this and what else its update finds is that of the last.
    pub actor_loss: f32,
    /// Mean Q of the batch.
    pub q_mean: f32,
    /// Mean effective sample size of the posterior means.
    pub ess: f32,
    /// Mean estimate of the target policy's entropy; NaN where no point tells it.
    pub entropy: f32,
    /// Points of the actor without a posterior mean, for the critic is not finite there.
    pub refused: usize,
    /// Temperature after the update.
    pub lambda: f32,
    /// Norm of the actor's gradient before any limit.
    pub grad_norm: f32,
}

impl UpdateStats {
    /// Shows the numbers, which a run that goes on reports again until the next update.
    pub fn visit(&mut self, name: &str, visitor: &mut dyn Visitor) {
        let mut refused = [self.refused as u64];
        visitor.u64s(&format!("{name}.refused"), &mut refused);
        self.refused = refused[0] as usize;
        let mut values =
            [self.critic_loss, self.actor_loss, self.q_mean, self.ess, self.entropy, self.lambda, self.grad_norm];
        visitor.f32s(name, &mut values);
        [self.critic_loss, self.actor_loss, self.q_mean, self.ess, self.entropy, self.lambda, self.grad_norm] = values;
    }
}

/// One algorithm: it behaves, learns, is evaluated, and shows every number that learning changes.
pub trait Agent: Send {
    /// Actions in (-1, 1), `rows x act`, for the normalised observations `obs`, `rows x obs`, as the agent behaves while it
    /// learns.
    fn act(&mut self, obs: &[f32], actions: &mut [f32]);

    /// Actions in (-1, 1) as the agent is evaluated: with one particle a plain sample of the policy, which is what a robot
    /// without a critic runs; with more the greedy choice, the best of so many samples by min Q (for `sac` the mean action,
    /// as is customary). Draws from `noise`, so training is not disturbed.
    fn evaluate(&mut self, obs: &[f32], particles: usize, noise: &mut Noise, actions: &mut [f32]);

    /// One update from the replay buffer, which must not be empty.
    fn update(&mut self, replay: &Replay) -> UpdateStats;

    /// Shows every number that learning changes, always in one order: parameters, moments, temperatures, random states.
    fn visit(&mut self, visitor: &mut dyn Visitor);

    /// The temperature lambda, or the like.
    fn temperature(&self) -> f32;

    /// Starts from a policy of [`Self::as_rfm`]'s kind instead of fresh weights: its networks, and its critics and temperature
    /// where they travel along. Algorithms without an artefact refuse.
    fn start_from(&mut self, _: &Artefact<'_>) -> Result<()> {
        Err(Error::usage("--init starts rfm alone, for the other algorithms have no artefact: leave it out"))
    }

    /// The flow policy inside; none for the other algorithms.
    fn as_rfm(&self) -> Option<&rfm::Rfm> {
        None
    }
}

/// A fresh agent of an algorithm, for observations of width `obs` and actions of width `act`.
pub fn make(algorithm: &Algorithm, obs: usize, act: usize, seed: u64) -> Box<dyn Agent> {
    match algorithm {
        Algorithm::Rfm(config) => Box::new(rfm::Rfm::new(config, obs, act, seed)),
        Algorithm::Sac(config) => Box::new(sac::Sac::new(config, obs, act, seed)),
        Algorithm::Qsm(config) => Box::new(qsm::Qsm::new(config, obs, act, seed)),
        Algorithm::Qne(config) => Box::new(qne::Qne::new(config, obs, act, seed)),
        Algorithm::Dqs(config) => Box::new(dqs::Dqs::new(config, obs, act, seed)),
        Algorithm::Qvpo(config) => Box::new(qvpo::Qvpo::new(config, obs, act, seed)),
    }
}

fn mean(x: &[f32]) -> f32 {
    x.iter().sum::<f32>() / x.len() as f32
}

/// The velocity network that a configuration asks for.
pub fn velocity_shape(config: &RfmConfig, obs: usize, act: usize) -> VelocityShape {
    let constant = if config.constant_embedding {
        // The features of the temperature at the start, at the frequencies of the time features.
        let angles = config.frequencies.iter().map(|f| f * config.temperature as f32);
        angles.clone().map(f32::sin).chain(angles.map(f32::cos)).collect()
    } else {
        Vec::new()
    };
    let hidden = Hidden {
        width: config.train.actor_hidden,
        layers: config.train.actor_layers,
        outputs: act,
        activation: config.train.activation,
        trunk: config.train.trunk,
        layer_norm: false,
    };
    VelocityShape { obs, act, frequencies: config.frequencies.clone(), constant, hidden }
}

/// The critics that a configuration asks for.
pub fn critic_shape(config: &TrainConfig, obs: usize, act: usize) -> CriticShape {
    let hidden = Hidden {
        width: config.critic_hidden,
        layers: config.critic_layers,
        outputs: 1,
        activation: config.critic_activation,
        trunk: Trunk::Plain,
        layer_norm: config.critic_layer_norm,
    };
    CriticShape { obs, act, hidden }
}

/// Lengthens `buffer` to `len` where it is shorter, and gives the first `len` numbers.
fn room(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

#[cfg(test)]
mod tests;
