//! The configuration of a run: every constant, from a preset, a file and the command line to `config.toml` and back.
//!
//! This file holds the sections that every run has; the constants of an algorithm are in a file of its own ([`Algorithm`]
//! is the list), [`Config::resolve`] (in `sources`) lays a file and the command line over a preset, and `check` refuses
//! what no run could use. A configuration is always complete: written to `config.toml` and read again it is the same.
//! Physics stand under `[env]` beside the trainer's view of the environment, the algorithm's constants in a section of
//! its name. No panics; pure apart from reading the file.

mod algorithm;
mod baselines;
mod check;
mod rfm;
mod sources;
mod train;

pub use algorithm::{ALGORITHMS, Algorithm};
pub use baselines::{DqsConfig, QneConfig, QsmConfig, QvpoConfig, SacConfig, StepNoise};
pub use rfm::{ActorAt, ControlVariate, Estimator, RfmConfig, TemperatureRule};
pub use sources::{Sources, WITHOUT_EFFECT};
pub(crate) use sources::{flatten, nearest};
pub use train::{Activation, TrainConfig, Trunk, Twins};

use crate::env::{self, Constants, Env};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use toml::{Table, Value};

/// The presets of constants.
pub const PRESETS: [&str; 2] = ["default", "paper"];

/// Everything that determines a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The preset that this configuration started from.
    pub preset: String,
    /// The seed of everything random.
    pub seed: u64,
    /// Control steps to train for, over all environments.
    pub total_timesteps: u64,
    /// Control steps between checkpoints.
    pub checkpoint_every: u64,
    /// Write TensorBoard's event files beside `progress.csv`.
    pub tensorboard: bool,
    /// The policy that training starts from; empty for fresh networks.
    pub init: String,
    /// Recorded transitions that the replay buffer starts with; empty for none.
    pub replay: String,
    /// The environment.
    pub env: EnvConfig,
    /// The algorithm with its constants.
    pub algorithm: Algorithm,
    /// Evaluation.
    pub eval: EvalConfig,
}

/// `config.toml` without the algorithm's section.
#[derive(Serialize, Deserialize)]
struct Document {
    preset: String,
    algo: String,
    seed: u64,
    total_timesteps: u64,
    checkpoint_every: u64,
    tensorboard: bool,
    init: String,
    replay: String,
    env: EnvConfig,
    eval: EvalConfig,
}

/// The environment as the trainer sees it, and its physics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EnvConfig {
    /// The environment's name.
    pub name: String,
    /// Threads on which the environments of one run step; it pays for environments that are slow. The results do not depend
    /// on it.
    pub threads: usize,
    /// Control steps that one decision lasts.
    pub action_repeat: usize,
    /// Factor on a decision's reward for training.
    pub reward_scale: f64,
    /// Where the normaliser's means and scales come from.
    pub normaliser: NormaliserRule,
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

/// Where the means and scales of the observation normaliser come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NormaliserRule {
    /// They are `obs_mean` and `obs_scale`, throughout.
    Given,
    /// They follow the mean and the deviation of all observations so far, from `obs_mean` and `obs_scale` on; the policy
    /// is exported with the last.
    Fitted,
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
    /// A preset for an algorithm and an environment, complete.
    pub fn preset(preset: &str, algo: &str, env_name: &str) -> Result<Self> {
        Self::for_env(preset, algo, &*env::make(env_name, &BTreeMap::new())?)
    }

    /// As [`Self::preset`], for an environment that the command line need not know.
    pub fn for_env(preset: &str, algo: &str, env: &dyn Env) -> Result<Self> {
        let spec = env.spec();
        let mut algorithm = Algorithm::preset(algo, preset)?;
        if preset == "default" && spec.constants == Constants::Large {
            algorithm.enlarge();
        }
        let mut config = Self {
            preset: preset.to_string(),
            seed: 1,
            total_timesteps: spec.total_timesteps,
            checkpoint_every: points_of_the_curve(spec.total_timesteps),
            tensorboard: false,
            init: String::new(),
            replay: String::new(),
            env: EnvConfig {
                name: spec.name.to_string(),
                threads: if spec.name.starts_with("gym:") { cores() } else { 1 },
                action_repeat: spec.action_repeat,
                reward_scale: spec.reward_scale,
                normaliser: if spec.obs_unknown { NormaliserRule::Fitted } else { NormaliserRule::Given },
                obs_mean: spec.obs_mean.clone(),
                obs_scale: spec.obs_scale.clone(),
                obs_clip: spec.obs_clip,
                physics: physics(env),
            },
            algorithm,
            eval: EvalConfig {
                episodes: 20,
                every: points_of_the_curve(spec.total_timesteps),
                curve_episodes: 5,
                best_of: 16,
            },
        };
        if preset == "paper" {
            config.total_timesteps = 250_000;
            config.checkpoint_every = 10_000;
            // Every control step is a decision with a reward of order one, and the networks see the raw observation:
            // no clip is ever reached at 1000.
            // The small tasks' scale makes the sum over a decision of order one; the Control Suite's counts every step.
            if spec.constants == Constants::Small {
                config.env.reward_scale *= spec.action_repeat as f64;
            }
            config.env.action_repeat = 1;
            config.env.obs_mean.fill(0.0);
            config.env.obs_scale.fill(1.0);
            config.env.obs_clip = 1_000.0;
            config.eval = EvalConfig { episodes: 25, every: 10_000, curve_episodes: 25, best_of: 32 };
        }
        Ok(config)
    }

    /// The name of the algorithm.
    pub fn algo(&self) -> &'static str {
        self.algorithm.name()
    }

    /// The constants that all algorithms share.
    pub fn train(&self) -> &TrainConfig {
        self.algorithm.train()
    }

    /// The constants of Reverse Flow Matching; a refusal where another algorithm is configured.
    pub fn rfm(&self) -> Result<&RfmConfig> {
        match &self.algorithm {
            Algorithm::Rfm(rfm) => Ok(rfm),
            other => Err(Error::usage(format!("this needs a policy of rfm and not of {}", other.name()))),
        }
    }

    /// The text of `config.toml`.
    pub fn to_toml(&self) -> String {
        self.to_table().to_string()
    }

    /// The content of `config.toml`.
    fn to_table(&self) -> Table {
        let document = Document {
            preset: self.preset.clone(),
            algo: self.algo().to_string(),
            seed: self.seed,
            total_timesteps: self.total_timesteps,
            checkpoint_every: self.checkpoint_every,
            tensorboard: self.tensorboard,
            init: self.init.clone(),
            replay: self.replay.clone(),
            env: self.env.clone(),
            eval: self.eval.clone(),
        };
        let mut table = Table::try_from(document).expect("a configuration has string keys and finite depth");
        table.insert(self.algo().to_string(), Value::Table(self.algorithm.section()));
        table
    }

    /// The configuration that a complete table is.
    fn from_table(mut table: Table) -> std::result::Result<Self, toml::de::Error> {
        let name = table.get("algo").and_then(Value::as_str).unwrap_or_default().to_string();
        let section = table.remove(&name).unwrap_or(Value::Table(Table::new()));
        let algorithm = Algorithm::from_section(&name, section)?;
        let d: Document = table.try_into()?;
        let (preset, seed, total_timesteps, checkpoint_every) =
            (d.preset, d.seed, d.total_timesteps, d.checkpoint_every);
        let (tensorboard, init, replay, env, eval) = (d.tensorboard, d.init, d.replay, d.env, d.eval);
        Ok(Self { preset, seed, total_timesteps, checkpoint_every, tensorboard, init, replay, env, algorithm, eval })
    }

    /// Makes the environment with the physics of this configuration.
    pub fn make_env(&self) -> Result<Box<dyn Env>> {
        env::make(&self.env.name, &self.env.physics)
    }
}

/// The processor's cores.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Control steps between evaluations that give a curve of twelve points.
fn points_of_the_curve(total_timesteps: u64) -> u64 {
    (total_timesteps / 12).max(1)
}

/// The physical parameters of an environment, by name.
fn physics(env: &dyn Env) -> BTreeMap<String, f64> {
    env.params().into_iter().collect()
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
            for algo in ALGORITHMS {
                for name in env::NAMES {
                    let mut config = Config::preset(preset, algo, name).unwrap();
                    config.seed = 77;
                    config.algorithm.train_mut().tau = 0.1 + 0.2;
                    config.env.physics.insert("dt".into(), 0.017);
                    let text = config.to_toml();
                    assert_eq!(from_text(&text), config, "{text}");
                }
            }
        }
    }
}
