//! The constants of Reverse Flow Matching, and what they may be.

use super::TrainConfig;
use super::check::{frequencies, no_more, reals, rising, wholes};
use crate::agent::batch::{ENTROPY_UNTIL, annealed, chains};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::f64::consts::FRAC_PI_2;

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

/// The constants of Reverse Flow Matching.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RfmConfig {
    /// What it shares with the other algorithms.
    #[serde(flatten)]
    pub train: TrainConfig,
    /// Frequencies of the time features, rad per unit of flow time.
    pub frequencies: Vec<f32>,
    /// Feed the actor the features of lambda too (folded into a bias on export).
    pub constant_embedding: bool,
    /// Gain of the actor's output layer at the start, in units of sqrt 2.
    pub actor_out_gain: f64,
    /// States in an update of the actor: the first rows of the batch.
    pub actor_batch: usize,
    /// Updates of the critics for each update of the actor.
    pub actor_delay: u64,
    /// Rate at which the average actor follows, which is evaluated and exported; 1 for the actor itself.
    pub actor_average: f64,
    /// The states of the actor's update.
    pub actor_at: ActorAt,
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
    /// Uniform actions are drawn within plus and minus this; so close to 1 that their density counts as that of (-1, 1).
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
    /// The same at the start; it moves evenly to the final one over the first `anneal_updates` updates of the actor.
    pub start_entropy_per_dim: f64,
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
            train: TrainConfig { tau: 0.02, learning_starts: 500, ..TrainConfig::standard() },
            frequencies: [1.0, 2.0, 4.0, 8.0].map(|k| (FRAC_PI_2 * k) as f32).to_vec(),
            constant_embedding: false,
            actor_out_gain: 0.1,
            actor_batch: 32,
            actor_delay: 1,
            actor_average: 0.01,
            actor_at: ActorAt::Next,
            integration_steps: 5,
            t_min: 0.0,
            t_max: 1.0,
            train_t_min: 0.01,
            train_t_max: 0.99,
            latent_clip: 6.0,
            particles: 4,
            target_particles: 1,
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
            anneal_updates: 5_000,
            target_entropy_per_dim: -1.0,
            start_entropy_per_dim: 0.0,
            target_ess: 0.5,
            temperature_lr: 3e-4,
            log_temperature_min: -7.0,
            log_temperature_max: 4.0,
        }
    }

    /// What the Control Suite's tasks ask for beside [`TrainConfig`]'s own: decisions by single samples. With the best of
    /// four, replay lacks the actions that the critics' targets are about, and some seeds settle early.
    pub(super) fn enlarge(&mut self) {
        self.particles = 1;
    }

    /// The published constants (arXiv 2601.08136). It clips no latent: at 100 the tanh has long saturated.
    pub fn paper() -> Self {
        let frequency = |i: i32| (-(1000f64.ln()) * f64::from(i) / 63.0).exp() as f32;
        Self {
            train: TrainConfig::paper(),
            frequencies: (0..64).map(frequency).collect(),
            constant_embedding: true,
            actor_out_gain: 1.0,
            actor_batch: 256,
            actor_average: 1.0,
            actor_at: ActorAt::Current,
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
            // What is left belongs to proposals, rules and a control variate that it does not use.
            ..Self::standard()
        }
    }

    /// Refuses what no run could use.
    pub(super) fn check(&self) -> Result<()> {
        let r = self;
        frequencies("rfm", &r.frequencies)?;
        wholes(
            "rfm",
            &[
                ("actor_batch", r.actor_batch as u64, 1, 65_536),
                ("actor_delay", r.actor_delay, 1, 1_000),
                ("integration_steps", r.integration_steps as u64, 1, 1000),
                ("particles", r.particles as u64, 1, 1024),
                ("target_particles", r.target_particles as u64, 1, 4096),
                ("bridge", r.bridge as u64, 0, 4096),
                ("uniform", r.uniform as u64, 0, 4096),
                ("kernel", r.kernel as u64, 0, 4096),
                ("anneal_updates", r.anneal_updates, 1, 1 << 50),
            ],
        )?;
        reals(
            "rfm",
            &[
                ("actor_out_gain", r.actor_out_gain, 0.0, 1e3),
                ("actor_average", r.actor_average, 1e-6, 1.0),
                ("t_min", r.t_min, 0.0, 1.0),
                ("t_max", r.t_max, 0.0, 1.0),
                ("train_t_min", r.train_t_min, 1e-4, 0.9999),
                ("train_t_max", r.train_t_max, 1e-4, 0.9999),
                ("latent_clip", r.latent_clip, 0.1, 1024.0),
                ("bandwidth", r.bandwidth, 1e-3, 1e3),
                ("uniform_bound", r.uniform_bound, 0.99, 0.999_999),
                ("eta", r.eta, -10.0, 10.0),
                ("ridge", r.ridge, 0.0, 1e30),
                ("clip", r.clip, 0.0, 1e30),
                ("temperature", r.temperature, 1e-6, 1e6),
                ("temperature_end", r.temperature_end, 1e-6, 1e6),
                ("target_ess", r.target_ess, 0.0, 1.0),
                ("target_entropy_per_dim", r.target_entropy_per_dim, -100.0, 100.0),
                ("start_entropy_per_dim", r.start_entropy_per_dim, -100.0, 100.0),
                ("temperature_lr", r.temperature_lr, 0.0, 1.0),
                ("log_temperature_min", r.log_temperature_min, -20.0, 20.0),
                ("log_temperature_max", r.log_temperature_max, -20.0, 20.0),
            ],
        )?;
        for (low, high) in [
            (("t_min", r.t_min), ("t_max", r.t_max)),
            (("train_t_min", r.train_t_min), ("train_t_max", r.train_t_max)),
            (("log_temperature_min", r.log_temperature_min), ("log_temperature_max", r.log_temperature_max)),
        ] {
            rising("rfm", low, high)?;
        }
        no_more("rfm", ("actor_batch", r.actor_batch), ("batch_size", r.train.batch_size))?;
        if r.candidates() == 0 {
            return Err(Error::usage(
                "rfm.bridge, rfm.uniform and rfm.kernel are all 0: the estimator needs at least one candidate",
            ));
        }
        if r.estimator == Estimator::Auto && r.control_variate != ControlVariate::None {
            return Err(Error::usage(
                "rfm.estimator = \"auto\" has a control variate of its own, and rfm.control_variate would be ignored: \
                 set it to \"none\"",
            ));
        }
        // The diagonal coefficients divide by a sum that nothing but the ridge keeps from zero.
        if r.control_variate == ControlVariate::Diagonal && r.ridge < 1e-12 {
            return Err(Error::usage(format!(
                "rfm.ridge = {}: with rfm.control_variate = \"diagonal\" it must be at least 1e-12",
                r.ridge
            )));
        }
        // With one step or one round these methods are importance sampling under another name.
        let (name, works): (_, fn(usize) -> bool) = match r.estimator {
            Estimator::Mala => ("mala", |k| chains(k).steps > 1),
            Estimator::Smc => ("smc", |k| annealed(k).rounds > 1),
            Estimator::Mixture | Estimator::Auto => ("", |_| true),
        };
        if !works(r.candidates()) {
            let k = r.candidates();
            let nearest = (1..k + 3).flat_map(|d| [k.saturating_sub(d), k + d]).find(|near| *near > 0 && works(*near));
            return Err(Error::usage(format!(
                "rfm.bridge + rfm.uniform + rfm.kernel = {k} candidates cannot be shared out evenly over several \
                 rounds of rfm.estimator = \"{name}\": make them {}",
                nearest.unwrap_or(8)
            )));
        }
        let early = r.estimator == Estimator::Mixture || r.train_t_min < f64::from(ENTROPY_UNTIL);
        if r.temperature_rule == TemperatureRule::Entropy && !early {
            return Err(Error::usage(format!(
                "rfm.train_t_min = {}: flowlet's estimators tell the entropy up to time {ENTROPY_UNTIL} alone, so lower \
                 it, or set rfm.temperature_rule to \"fixed\" or rfm.estimator to \"mixture\"",
                r.train_t_min
            )));
        }
        Ok(())
    }
}
