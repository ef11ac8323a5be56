//! The configuration of a run: every constant, from a preset, a file and the command line to `config.toml` and back.
//!
//! This file holds the sections and the presets; [`Config::resolve`] (in `sources`) lays a file and the command line
//! over a preset, and `check` refuses what no run could use. A configuration is always complete: written to
//! `config.toml` and read again it is the same. Physics stand under `[env]` beside the trainer's view of the
//! environment. No panics; pure apart from reading the file.

mod check;
mod sources;

pub use sources::Sources;

use crate::env::{self, Env};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::f64::consts::FRAC_PI_2;

/// The algorithms that can be trained.
pub const ALGORITHMS: [&str; 1] = ["rfm"];
/// The presets of constants.
pub const PRESETS: [&str; 2] = ["default", "paper"];

/// Everything that determines a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// The preset that this configuration started from.
    pub preset: String,
    /// The algorithm.
    pub algo: String,
    /// The seed of everything random.
    pub seed: u64,
    /// Control steps to train for, over all environments.
    pub total_timesteps: u64,
    /// The environment.
    pub env: EnvConfig,
    /// Reverse Flow Matching.
    pub rfm: RfmConfig,
    /// Evaluation.
    pub eval: EvalConfig,
}

/// The environment as the trainer sees it, and its physics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EnvConfig {
    /// The environment's name.
    pub name: String,
    /// Control steps that one decision lasts.
    pub action_repeat: usize,
    /// Factor on a decision's reward for training.
    pub reward_scale: f64,
    /// Normaliser: mean of each observation channel.
    pub obs_mean: Vec<f32>,
    /// Normaliser: factor on each observation channel.
    pub obs_scale: Vec<f32>,
    /// Normaliser: largest magnitude.
    pub obs_clip: f32,
    /// Every physical parameter, with the names that `envs` lists.
    #[serde(flatten)]
    pub physics: BTreeMap<String, f64>,
}

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

/// The states on which the actor is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActorAt {
    /// The state after the transition: its policy sample is shared with the critic's target.
    Next,
    /// The state before the transition.
    Current,
}

/// Who estimates the posterior mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Estimator {
    /// The trainer's own: one round from a fixed mixture of proposals, vectorised.
    Mixture,
    /// flowlet's default: rounds that learn from the first candidates and their scores, and a control variate of its
    /// own. Of the estimator's other keys only the number of candidates counts, `bridge + uniform + kernel`.
    Auto,
    /// Metropolis-adjusted Langevin chains: half of the candidates start them, from bridge and uniform actions, half are
    /// moves. The control variate and its constants count, of the others only the number of candidates.
    Mala,
    /// Annealed sequential Monte Carlo in up to four rounds; the same keys count.
    Smc,
}

/// Coefficients of the control variate in the posterior mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ControlVariate {
    /// No control variate.
    None,
    /// One fixed coefficient, `eta`.
    Eta,
    /// Plug-in coefficient of each channel.
    Diagonal,
    /// Fisher form: reciprocal of the scores' second moment.
    Fisher,
}

/// How the temperature lambda moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TemperatureRule {
    /// It does not.
    Fixed,
    /// Geometrically from `temperature` to `temperature_end` over the first `anneal_updates` updates of the actor.
    Annealed,
    /// Towards a target entropy.
    Entropy,
    /// Towards a target effective sample size of the posterior means.
    Ess,
}

/// The value of two critics in the critics' own target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Twins {
    /// The smaller one.
    Min,
    /// Their mean.
    Mean,
}

/// The constants of Reverse Flow Matching.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RfmConfig {
    /// Width of the actor's hidden layers.
    pub actor_hidden: usize,
    /// Number of the actor's hidden layers.
    pub actor_layers: usize,
    /// Activation of the actor.
    pub activation: Activation,
    /// Trunk of the actor.
    pub trunk: Trunk,
    /// Frequencies of the time features, rad per unit of flow time.
    pub frequencies: Vec<f32>,
    /// Feed the actor the features of lambda too (folded into a bias on export).
    pub constant_embedding: bool,
    /// Gain of the actor's output layer at the start, in units of sqrt 2.
    pub actor_out_gain: f64,
    /// Width of the critics' hidden layers.
    pub critic_hidden: usize,
    /// Number of the critics' hidden layers.
    pub critic_layers: usize,
    /// Activation of the critics.
    pub critic_activation: Activation,
    /// Normalise each row before the critics' activations; their values cannot be exported then.
    pub critic_layer_norm: bool,
    /// Learning rate of the actor.
    pub policy_lr: f64,
    /// Learning rate of the critics.
    pub q_lr: f64,
    /// Largest global norm of a gradient; 0 for none.
    pub max_grad_norm: f64,
    /// Discount of a decision.
    pub gamma: f64,
    /// Rate at which the target critics follow.
    pub tau: f64,
    /// Transitions in an update of the critics.
    pub batch_size: usize,
    /// States in an update of the actor: the first rows of the batch.
    pub actor_batch: usize,
    /// Updates of the critics for each update of the actor.
    pub actor_delay: u64,
    /// The states of the actor's update.
    pub actor_at: ActorAt,
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
    /// Euler steps of a policy sample.
    pub integration_steps: usize,
    /// Flow time at which sampling starts.
    pub t_min: f64,
    /// Flow time at which sampling ends.
    pub t_max: f64,
    /// Smallest flow time of the regression.
    pub train_t_min: f64,
    /// Largest flow time of the regression.
    pub train_t_max: f64,
    /// Largest magnitude of a latent after sampling.
    pub latent_clip: f64,
    /// Policy samples from which behaviour picks one by softmax(Q / lambda).
    pub particles: usize,
    /// The same for the critics' target.
    pub target_particles: usize,
    /// What the critics' target makes of the two slow critics.
    pub target_twins: Twins,
    /// The estimator of the posterior mean.
    pub estimator: Estimator,
    /// Candidates of the posterior mean drawn from the source (bridge).
    pub bridge: usize,
    /// Candidates drawn as uniform actions.
    pub uniform: usize,
    /// Candidates drawn around a policy sample.
    pub kernel: usize,
    /// Standard deviation of the kernel candidates.
    pub bandwidth: f64,
    /// Uniform actions are drawn within plus and minus this.
    pub uniform_bound: f64,
    /// The control variate; only `none` where the estimator has one of its own.
    pub control_variate: ControlVariate,
    /// Its coefficient where it is fixed.
    pub eta: f64,
    /// Ridge under its plug-in coefficient.
    pub ridge: f64,
    /// Largest magnitude of a plug-in coefficient, on the data side.
    pub clip: f64,
    /// Temperature lambda at the start.
    pub temperature: f64,
    /// How it moves.
    pub temperature_rule: TemperatureRule,
    /// Temperature at the end of the annealing.
    pub temperature_end: f64,
    /// Updates of the actor that the annealing lasts.
    pub anneal_updates: u64,
    /// Entropy that the rule aims for, per action channel.
    pub target_entropy_per_dim: f64,
    /// Effective sample size that the rule aims for, as a share of the candidates.
    pub target_ess: f64,
    /// Learning rate of log lambda, where an estimate moves it.
    pub temperature_lr: f64,
    /// Smallest log lambda.
    pub log_temperature_min: f64,
    /// Largest log lambda.
    pub log_temperature_max: f64,
}

impl RfmConfig {
    /// Candidates of one posterior mean, K.
    pub fn candidates(&self) -> usize {
        self.bridge + self.uniform + self.kernel
    }

    /// The constants recommended for small networks.
    ///
    /// Five Euler steps and 32 actor states an update are where the single sample stopped gaining on `pendulum`; three
    /// steps and 16 states cost a fifth less and are a little less even over seeds.
    pub fn standard() -> Self {
        Self {
            actor_hidden: 64,
            actor_layers: 2,
            activation: Activation::Relu,
            trunk: Trunk::Plain,
            frequencies: [1.0, 2.0, 4.0, 8.0].map(|k| (FRAC_PI_2 * k) as f32).to_vec(),
            constant_embedding: false,
            actor_out_gain: 0.1,
            critic_hidden: 64,
            critic_layers: 2,
            critic_activation: Activation::Relu,
            critic_layer_norm: false,
            policy_lr: 1e-3,
            q_lr: 1e-3,
            max_grad_norm: 0.0,
            gamma: 0.99,
            tau: 0.01,
            batch_size: 128,
            actor_batch: 32,
            actor_delay: 1,
            actor_at: ActorAt::Next,
            buffer_size: 100_000,
            learning_starts: 1_000,
            num_envs: 4,
            block: 16,
            updates_per_decision: 1.0,
            integration_steps: 5,
            t_min: 0.0,
            t_max: 1.0,
            train_t_min: 0.01,
            train_t_max: 0.99,
            latent_clip: 6.0,
            particles: 4,
            target_particles: 1,
            target_twins: Twins::Min,
            estimator: Estimator::Mixture,
            bridge: 3,
            uniform: 3,
            kernel: 2,
            bandwidth: 0.3,
            uniform_bound: 0.9999,
            control_variate: ControlVariate::None,
            eta: 0.5,
            ridge: 1e-4,
            clip: 2.0,
            temperature: 0.1,
            temperature_rule: TemperatureRule::Entropy,
            temperature_end: 0.02,
            anneal_updates: 10_000,
            target_entropy_per_dim: -1.0,
            target_ess: 0.5,
            temperature_lr: 3e-4,
            log_temperature_min: -7.0,
            log_temperature_max: 4.0,
        }
    }

    /// The published constants (arXiv 2601.08136). It clips no latent: at 100 the tanh has long saturated.
    pub fn paper() -> Self {
        let frequency = |i: i32| (-(1000f64.ln()) * f64::from(i) / 63.0).exp() as f32;
        Self {
            actor_hidden: 256,
            actor_layers: 3,
            activation: Activation::Gelu,
            trunk: Trunk::Residual,
            frequencies: (0..64).map(frequency).collect(),
            constant_embedding: true,
            actor_out_gain: 1.0,
            critic_hidden: 256,
            critic_layers: 2,
            critic_activation: Activation::Relu,
            policy_lr: 3e-4,
            q_lr: 1e-3,
            max_grad_norm: 10.0,
            gamma: 0.99,
            tau: 0.005,
            batch_size: 256,
            actor_batch: 256,
            actor_at: ActorAt::Current,
            buffer_size: 250_000,
            learning_starts: 10_000,
            num_envs: 1,
            block: 1,
            updates_per_decision: 1.0,
            integration_steps: 10,
            t_min: 0.01,
            t_max: 0.99,
            train_t_min: 0.01,
            train_t_max: 0.99,
            latent_clip: 100.0,
            particles: 32,
            target_particles: 32,
            bridge: 100,
            uniform: 0,
            kernel: 0,
            control_variate: ControlVariate::Diagonal,
            temperature: 0.02,
            temperature_rule: TemperatureRule::Fixed,
            ..Self::standard()
        }
    }
}

/// How a policy is evaluated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalConfig {
    /// Episodes of the evaluations before and after training.
    pub episodes: usize,
    /// Control steps between the evaluations along the way.
    pub every: u64,
    /// Episodes of each of those.
    pub curve_episodes: usize,
    /// Samples from which the critic picks in the best-of column.
    pub best_of: usize,
}

impl Config {
    /// A preset for an environment, complete.
    pub fn preset(preset: &str, env_name: &str) -> Result<Self> {
        let env = env::make(env_name, &BTreeMap::new())?;
        let spec = env.spec();
        let mut config = Self {
            preset: preset.to_string(),
            algo: "rfm".to_string(),
            seed: 1,
            total_timesteps: spec.total_timesteps,
            env: EnvConfig {
                name: spec.name.to_string(),
                action_repeat: spec.action_repeat,
                reward_scale: spec.reward_scale,
                obs_mean: spec.obs_mean.clone(),
                obs_scale: spec.obs_scale.clone(),
                obs_clip: spec.obs_clip,
                physics: physics(&*env),
            },
            rfm: RfmConfig::standard(),
            eval: EvalConfig {
                episodes: 20,
                every: points_of_the_curve(spec.total_timesteps),
                curve_episodes: 5,
                best_of: 16,
            },
        };
        match preset {
            "default" => {}
            "paper" => {
                config.rfm = RfmConfig::paper();
                config.total_timesteps = 250_000;
                // Every control step is a decision with a reward of order one, and the networks see the raw
                // observation: no clip is ever reached at 1000.
                config.env.reward_scale *= spec.action_repeat as f64;
                config.env.action_repeat = 1;
                config.env.obs_mean.fill(0.0);
                config.env.obs_scale.fill(1.0);
                config.env.obs_clip = 1_000.0;
                config.eval = EvalConfig { episodes: 25, every: 10_000, curve_episodes: 25, best_of: 32 };
            }
            _ => {
                return Err(Error::usage(format!("unknown preset {preset:?}: use one of {}", PRESETS.join(", "))));
            }
        }
        Ok(config)
    }

    /// The text of `config.toml`.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a configuration has string keys and finite depth")
    }

    /// Makes the environment with the physics of this configuration.
    pub fn make_env(&self) -> Result<Box<dyn Env>> {
        env::make(&self.env.name, &self.env.physics)
    }
}

/// Control steps between evaluations that give a curve of twelve points.
fn points_of_the_curve(total_timesteps: u64) -> u64 {
    (total_timesteps / 12).max(1)
}

/// The physical parameters of an environment, by name.
fn physics(env: &dyn Env) -> BTreeMap<String, f64> {
    let params = env.params().into_iter();
    params.map(|(key, value)| (key.to_string(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_text(text: &str) -> Config {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        let file = Some(path.as_path());
        Config::resolve(&Sources { file, ..Sources::default() }).unwrap()
    }

    #[test]
    fn every_preset_survives_its_own_file() {
        for preset in PRESETS {
            for name in env::NAMES {
                let mut config = Config::preset(preset, name).unwrap();
                config.seed = 77;
                config.rfm.temperature = 0.1 + 0.2;
                config.rfm.estimator = Estimator::Auto;
                config.rfm.control_variate = ControlVariate::None;
                config.env.physics.insert("dt".into(), 0.017);
                let text = config.to_toml();
                assert_eq!(from_text(&text), config, "{text}");
            }
        }
    }
}
