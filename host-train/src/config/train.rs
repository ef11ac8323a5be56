//! What every algorithm is configured with: networks, optimiser, discount, replay and the rhythm of training.
//!
//! In `config.toml` these keys stand in the section of the algorithm, beside its own.

use super::check::{no_more, reals, wholes};
use crate::Result;
use serde::{Deserialize, Serialize};

/// Activation of the hidden layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// max(0, z).
    Relu,
    /// Hyperbolic tangent.
    Tanh,
    /// z times the logistic function of z.
    Silu,
    /// Gaussian error linear unit, tanh form.
    Gelu,
}

/// How the hidden layers of the actor follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trunk {
    /// h <- f(W h + b).
    Plain,
    /// h <- h + f(W h + b).
    Residual,
}

/// What the critics' target makes of the two slow critics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Twins {
    /// The smaller value.
    Min,
    /// The mean of both.
    Mean,
}

impl Twins {
    /// What makes one value of two.
    pub fn join(self) -> fn(f32, f32) -> f32 {
        match self {
            Self::Min => f32::min,
            Self::Mean => |one, two| 0.5 * (one + two),
        }
    }
}

/// The constants that all algorithms share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainConfig {
    /// Width of the actor's hidden layers.
    pub actor_hidden: usize,
    /// Number of the actor's hidden layers.
    pub actor_layers: usize,
    /// Activation of the actor.
    pub activation: Activation,
    /// Trunk of the actor.
    pub trunk: Trunk,
    /// Width of the critics' hidden layers.
    pub critic_hidden: usize,
    /// Number of the critics' hidden layers.
    pub critic_layers: usize,
    /// Activation of the critics.
    pub critic_activation: Activation,
    /// Normalise each row before the critics' activations; they do not travel with the policy then.
    pub critic_layer_norm: bool,
    /// Learning rate of the actor.
    pub policy_lr: f64,
    /// Learning rate of the critics.
    pub q_lr: f64,
    /// Largest global norm of a gradient; 0 for none.
    pub max_grad_norm: f64,
    /// Discount of a decision.
    pub gamma: f64,
    /// Decisions whose rewards a critic's target adds up before it bootstraps; fewer where the episode or the record ends.
    pub n_step: usize,
    /// What the critics' target makes of the two slow critics.
    pub target_twins: Twins,
    /// Rate at which the target critics follow.
    pub tau: f64,
    /// Transitions in an update of the critics.
    pub batch_size: usize,
    /// Transitions that the replay buffer holds.
    pub buffer_size: usize,
    /// Decisions taken uniformly at random before the first update.
    pub learning_starts: u64,
    /// Environments side by side.
    pub num_envs: usize,
    /// Decisions between two bursts of updates, over all environments.
    pub block: usize,
    /// Updates for each decision.
    pub updates_per_decision: f64,
}

impl TrainConfig {
    /// The constants recommended for small networks.
    pub fn standard() -> Self {
        Self {
            actor_hidden: 64,
            actor_layers: 2,
            activation: Activation::Relu,
            trunk: Trunk::Plain,
            critic_hidden: 64,
            critic_layers: 2,
            critic_activation: Activation::Relu,
            critic_layer_norm: false,
            policy_lr: 1e-3,
            q_lr: 1e-3,
            max_grad_norm: 0.0,
            gamma: 0.99,
            n_step: 1,
            target_twins: Twins::Min,
            tau: 0.01,
            batch_size: 128,
            buffer_size: 100_000,
            learning_starts: 1_000,
            num_envs: 4,
            block: 16,
            updates_per_decision: 1.0,
        }
    }

    /// Turns the constants for small networks into those for the Control Suite. The smaller of two normalised critics is too
    /// low a target there: `walker` and `finger` then settle for half of what they reach.
    pub(super) fn enlarge(&mut self) {
        self.actor_hidden = 128;
        self.critic_hidden = 128;
        self.critic_layer_norm = true;
        self.target_twins = Twins::Mean;
        self.updates_per_decision = 4.0;
        self.buffer_size = 1_000_000;
    }

    /// The published constants (arXiv 2601.08136).
    pub fn paper() -> Self {
        Self {
            actor_hidden: 256,
            actor_layers: 3,
            activation: Activation::Gelu,
            trunk: Trunk::Residual,
            critic_hidden: 256,
            critic_layers: 2,
            critic_activation: Activation::Relu,
            critic_layer_norm: false,
            policy_lr: 3e-4,
            q_lr: 1e-3,
            max_grad_norm: 10.0,
            gamma: 0.99,
            n_step: 1,
            target_twins: Twins::Min,
            tau: 0.005,
            batch_size: 256,
            buffer_size: 250_000,
            learning_starts: 10_000,
            num_envs: 1,
            block: 1,
            updates_per_decision: 1.0,
        }
    }

    /// Refuses what no run could use; `section` names the algorithm.
    pub(super) fn check(&self, section: &str) -> Result<()> {
        wholes(
            section,
            &[
                ("actor_hidden", self.actor_hidden as u64, 1, 1024),
                ("actor_layers", self.actor_layers as u64, 1, 8),
                ("critic_hidden", self.critic_hidden as u64, 1, 1024),
                ("critic_layers", self.critic_layers as u64, 1, 8),
                ("batch_size", self.batch_size as u64, 1, 65_536),
                ("buffer_size", self.buffer_size as u64, 1, 100_000_000),
                ("n_step", self.n_step as u64, 1, 1_000),
                ("num_envs", self.num_envs as u64, 1, 4096),
                ("block", self.block as u64, 1, 1_000_000),
            ],
        )?;
        reals(
            section,
            &[
                ("policy_lr", self.policy_lr, 0.0, 1.0),
                ("q_lr", self.q_lr, 0.0, 1.0),
                ("max_grad_norm", self.max_grad_norm, 0.0, 1e30),
                ("gamma", self.gamma, 0.0, 1.0),
                ("tau", self.tau, 0.0, 1.0),
                ("updates_per_decision", self.updates_per_decision, 0.0, 1e3),
            ],
        )?;
        no_more(section, ("batch_size", self.batch_size), ("buffer_size", self.buffer_size))
    }
}
