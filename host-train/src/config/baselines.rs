//! The constants of the algorithms that Reverse Flow Matching is compared with, and what they may be.
//!
//! Each has `standard`, chosen here for small networks and a budget of CPU seconds, and `paper`, the published ones
//! (`docs/algorithms.md` has the sources, and what was tried). Keys that all algorithms share are in [`TrainConfig`].

use super::check::{no_more, reals, rising, wholes};
use super::{Activation, TrainConfig, Trunk};
use crate::Result;
use serde::{Deserialize, Serialize};

/// Variance of the noise that a step of a diffusion sampler adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepNoise {
    /// That of the state before given the state after and the data: the smaller one, for it takes the data as known.
    Posterior,
    /// That of the state after given the state before: the reverse SDE's.
    Forward,
}

/// Soft actor-critic (Haarnoja et al. 2018).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SacConfig {
    /// What it shares with the other algorithms.
    #[serde(flatten)]
    pub train: TrainConfig,
    /// Temperature alpha at the start.
    pub temperature: f64,
    /// Learning rate of log alpha.
    pub temperature_lr: f64,
    /// Entropy that the temperature aims for, per action channel.
    pub target_entropy_per_dim: f64,
    /// Smallest log standard deviation.
    pub log_std_min: f64,
    /// Largest log standard deviation.
    pub log_std_max: f64,
}

/// Q-score matching (Psenka et al. 2023).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QsmConfig {
    /// What it shares with the other algorithms.
    #[serde(flatten)]
    pub train: TrainConfig,
    /// Denoising steps of a policy sample.
    pub steps: usize,
    /// Noise of a step.
    pub step_noise: StepNoise,
    /// Factor on the action gradient of Q that the noise network is taught.
    pub scale: f64,
    /// Standard deviation of the noise on actions, in behaviour and in the critics' target.
    pub exploration: f64,
}

/// Q-weighted noise estimation: MaxEntDP (Dong et al. 2025).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QneConfig {
    /// What it shares with the other algorithms.
    #[serde(flatten)]
    pub train: TrainConfig,
    /// Denoising steps of a policy sample.
    pub steps: usize,
    /// Noise of a step.
    pub step_noise: StepNoise,
    /// Noises that one target averages, K.
    pub samples: usize,
    /// States in an update of the actor: the first rows of the batch.
    pub actor_batch: usize,
    /// Temperature lambda.
    pub temperature: f64,
    /// Smallest flow time of the regression; sampling starts there too.
    pub train_t_min: f64,
    /// Largest flow time of the regression.
    pub train_t_max: f64,
    /// Noise levels over which a log-probability is integrated; 0 leaves the entropy out of the critics' target.
    pub entropy_steps: usize,
    /// Noises for each of those levels.
    pub entropy_samples: usize,
}

/// Diffusion Q-sampling (Jain et al. 2024) with the estimator of iDEM (Akhound-Sadegh et al. 2024).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DqsConfig {
    /// What it shares with the other algorithms.
    #[serde(flatten)]
    pub train: TrainConfig,
    /// Denoising steps of a policy sample.
    pub steps: usize,
    /// Noise of a step.
    pub step_noise: StepNoise,
    /// Noises that one target averages, K.
    pub samples: usize,
    /// States in an update of the actor: the first rows of the batch.
    pub actor_batch: usize,
    /// Temperature lambda.
    pub temperature: f64,
    /// Noise at the data.
    pub sigma_min: f64,
    /// Noise at the source.
    pub sigma_max: f64,
    /// Count the Jacobian of the squash, so that the target is the Boltzmann density of actions and not of latents.
    pub jacobian: bool,
}

/// Q-weighted variational policy optimisation (Ding et al. 2024).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QvpoConfig {
    /// What it shares with the other algorithms.
    #[serde(flatten)]
    pub train: TrainConfig,
    /// Denoising steps of a policy sample.
    pub steps: usize,
    /// Noise of a step.
    pub step_noise: StepNoise,
    /// Policy samples of a state, of which the best one is learned.
    pub samples: usize,
    /// States in an update of the actor: the first rows of the batch.
    pub actor_batch: usize,
    /// Uniform actions of a state that are learned beside it.
    pub uniform: usize,
    /// Weight of a uniform action, relative to that of the best one.
    pub uniform_weight: f64,
    /// Policy samples from which behaviour takes the best.
    pub particles: usize,
    /// The same for the critics' target.
    pub target_particles: usize,
}

/// What the five share with Reverse Flow Matching under its published constants, over plain networks of two layers.
fn paper() -> TrainConfig {
    TrainConfig {
        actor_layers: 2,
        activation: Activation::Relu,
        trunk: Trunk::Plain,
        max_grad_norm: 0.0,
        ..TrainConfig::paper()
    }
}

impl SacConfig {
    /// The constants recommended for small networks.
    pub fn standard() -> Self {
        Self {
            train: TrainConfig { batch_size: 100, ..TrainConfig::standard() },
            temperature: 0.1,
            temperature_lr: 1e-3,
            target_entropy_per_dim: -1.0,
            log_std_min: -5.0,
            log_std_max: 2.0,
        }
    }

    /// The published constants.
    pub fn paper() -> Self {
        let train = TrainConfig { q_lr: 3e-4, ..paper() };
        Self { train, temperature: 1.0, temperature_lr: 3e-4, log_std_min: -20.0, ..Self::standard() }
    }

    /// Refuses what no run could use.
    pub(super) fn check(&self) -> Result<()> {
        reals(
            "sac",
            &[
                ("temperature", self.temperature, 1e-6, 1e6),
                ("temperature_lr", self.temperature_lr, 0.0, 1.0),
                ("target_entropy_per_dim", self.target_entropy_per_dim, -100.0, 100.0),
                ("log_std_min", self.log_std_min, -20.0, 20.0),
                ("log_std_max", self.log_std_max, -20.0, 20.0),
            ],
        )?;
        rising("sac", ("log_std_min", self.log_std_min), ("log_std_max", self.log_std_max))
    }
}

impl QsmConfig {
    /// The constants recommended for small networks.
    pub fn standard() -> Self {
        Self { train: TrainConfig::standard(), steps: 10, step_noise: StepNoise::Forward, scale: 3.0, exploration: 0.1 }
    }

    /// The published constants.
    pub fn paper() -> Self {
        Self { train: paper(), steps: 20, scale: 50.0, ..Self::standard() }
    }

    /// Refuses what no run could use.
    pub(super) fn check(&self) -> Result<()> {
        wholes("qsm", &[("steps", self.steps as u64, 1, 1000)])?;
        reals("qsm", &[("scale", self.scale, 0.0, 1e6), ("exploration", self.exploration, 0.0, 10.0)])
    }
}

impl QneConfig {
    /// The constants recommended for small networks.
    pub fn standard() -> Self {
        Self {
            train: TrainConfig::standard(),
            steps: 10,
            step_noise: StepNoise::Posterior,
            samples: 32,
            actor_batch: 32,
            temperature: 0.05,
            train_t_min: 0.01,
            train_t_max: 0.99,
            entropy_steps: 8,
            entropy_samples: 1,
        }
    }

    /// The published constants.
    pub fn paper() -> Self {
        Self {
            train: paper(),
            steps: 20,
            step_noise: StepNoise::Forward,
            samples: 500,
            actor_batch: 256,
            temperature: 0.02,
            entropy_steps: 20,
            entropy_samples: 50,
            ..Self::standard()
        }
    }

    /// Refuses what no run could use.
    pub(super) fn check(&self) -> Result<()> {
        wholes(
            "qne",
            &[
                ("steps", self.steps as u64, 1, 1000),
                ("samples", self.samples as u64, 1, 65_536),
                ("actor_batch", self.actor_batch as u64, 1, 65_536),
                ("entropy_steps", self.entropy_steps as u64, 0, 1000),
                ("entropy_samples", self.entropy_samples as u64, 1, 1000),
            ],
        )?;
        reals(
            "qne",
            &[
                ("temperature", self.temperature, 1e-6, 1e6),
                ("train_t_min", self.train_t_min, 1e-3, 0.999),
                ("train_t_max", self.train_t_max, 1e-3, 0.999),
            ],
        )?;
        rising("qne", ("train_t_min", self.train_t_min), ("train_t_max", self.train_t_max))?;
        no_more("qne", ("actor_batch", self.actor_batch), ("batch_size", self.train.batch_size))
    }
}

impl DqsConfig {
    /// The constants recommended for small networks.
    pub fn standard() -> Self {
        Self {
            train: TrainConfig::standard(),
            steps: 10,
            step_noise: StepNoise::Posterior,
            samples: 32,
            actor_batch: 32,
            temperature: 0.02,
            sigma_min: 1e-2,
            sigma_max: 1.0,
            jacobian: true,
        }
    }

    /// The published constants.
    pub fn paper() -> Self {
        Self {
            train: paper(),
            steps: 20,
            step_noise: StepNoise::Forward,
            samples: 1000,
            actor_batch: 256,
            temperature: 0.05,
            sigma_min: 1e-5,
            jacobian: false,
            ..Self::standard()
        }
    }

    /// Refuses what no run could use.
    pub(super) fn check(&self) -> Result<()> {
        wholes(
            "dqs",
            &[
                ("steps", self.steps as u64, 1, 1000),
                ("samples", self.samples as u64, 1, 65_536),
                ("actor_batch", self.actor_batch as u64, 1, 65_536),
            ],
        )?;
        reals(
            "dqs",
            &[
                ("temperature", self.temperature, 1e-6, 1e6),
                // What flowlet's schedule accepts.
                ("sigma_min", self.sigma_min, 1e-6, 512.0),
                ("sigma_max", self.sigma_max, 2.0 * self.sigma_min, 1024.0),
            ],
        )?;
        no_more("dqs", ("actor_batch", self.actor_batch), ("batch_size", self.train.batch_size))
    }
}

impl QvpoConfig {
    /// The constants recommended for small networks.
    pub fn standard() -> Self {
        Self {
            train: TrainConfig::standard(),
            steps: 10,
            step_noise: StepNoise::Posterior,
            samples: 16,
            actor_batch: 32,
            uniform: 2,
            uniform_weight: 0.1,
            particles: 4,
            target_particles: 1,
        }
    }

    /// The published constants.
    pub fn paper() -> Self {
        Self {
            train: paper(),
            steps: 20,
            samples: 64,
            actor_batch: 256,
            uniform: 10,
            uniform_weight: 0.02,
            target_particles: 4,
            ..Self::standard()
        }
    }

    /// Refuses what no run could use.
    pub(super) fn check(&self) -> Result<()> {
        wholes(
            "qvpo",
            &[
                ("steps", self.steps as u64, 1, 1000),
                ("samples", self.samples as u64, 2, 4096),
                ("actor_batch", self.actor_batch as u64, 1, 65_536),
                ("uniform", self.uniform as u64, 0, 1024),
                ("particles", self.particles as u64, 1, 4096),
                ("target_particles", self.target_particles as u64, 1, 4096),
            ],
        )?;
        reals("qvpo", &[("uniform_weight", self.uniform_weight, 0.0, 1e3)])?;
        no_more("qvpo", ("actor_batch", self.actor_batch), ("batch_size", self.train.batch_size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn presets_pass_and_unusable_values_are_refused_by_name() {
        for result in [
            SacConfig::standard().check(),
            SacConfig::paper().check(),
            QsmConfig::standard().check(),
            QsmConfig::paper().check(),
            QneConfig::standard().check(),
            QneConfig::paper().check(),
            DqsConfig::standard().check(),
            DqsConfig::paper().check(),
            QvpoConfig::standard().check(),
            QvpoConfig::paper().check(),
        ] {
            assert_eq!(result, Ok(()));
        }
        let (sac, qsm, qne) = (SacConfig::standard(), QsmConfig::standard(), QneConfig::standard());
        let (dqs, qvpo) = (DqsConfig::standard(), QvpoConfig::standard());
        for (key, result) in [
            ("sac.temperature", SacConfig { temperature: 0.0, ..sac.clone() }.check()),
            ("sac.log_std_min", SacConfig { log_std_min: 3.0, ..sac.clone() }.check()),
            ("sac.target_entropy_per_dim", SacConfig { target_entropy_per_dim: f64::NAN, ..sac }.check()),
            ("qsm.steps", QsmConfig { steps: 0, ..qsm.clone() }.check()),
            ("qsm.scale", QsmConfig { scale: f64::INFINITY, ..qsm.clone() }.check()),
            ("qsm.exploration", QsmConfig { exploration: -0.1, ..qsm }.check()),
            ("qne.samples", QneConfig { samples: 0, ..qne.clone() }.check()),
            ("qne.batch_size", QneConfig { actor_batch: 129, ..qne.clone() }.check()),
            ("qne.train_t_min", QneConfig { train_t_min: 0.0, ..qne.clone() }.check()),
            ("qne.train_t_max", QneConfig { train_t_min: 0.5, train_t_max: 0.4, ..qne.clone() }.check()),
            ("qne.temperature", QneConfig { temperature: f64::NAN, ..qne }.check()),
            ("dqs.sigma_max", DqsConfig { sigma_max: 1e-2, ..dqs.clone() }.check()),
            ("dqs.sigma_min", DqsConfig { sigma_min: 0.0, ..dqs.clone() }.check()),
            ("dqs.samples", DqsConfig { samples: 0, ..dqs }.check()),
            ("qvpo.samples", QvpoConfig { samples: 1, ..qvpo.clone() }.check()),
            ("qvpo.uniform_weight", QvpoConfig { uniform_weight: -1.0, ..qvpo.clone() }.check()),
            ("qvpo.particles", QvpoConfig { particles: 0, ..qvpo }.check()),
        ] {
            let Err(Error::Usage(sentence)) = result else { panic!("{key} was accepted") };
            assert!(sentence.contains(key), "{sentence}");
        }
    }
}
