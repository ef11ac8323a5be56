//! The ranges of a configuration: what lies outside could not train, evaluate or be exported (`docs/format.md`).
//!
//! Every refusal names the key, its value and what it may be. Comparisons are written so that NaN fails them.

use super::{ALGORITHMS, Config, ControlVariate, Estimator, TemperatureRule};
use crate::agent::batch::{ENTROPY_UNTIL, annealed, chains};
use crate::{Error, Result};

impl Config {
    /// Refuses values that no run could use.
    pub(super) fn checked(self) -> Result<Self> {
        let (e, r, v) = (&self.env, &self.rfm, &self.eval);
        if !ALGORITHMS.contains(&self.algo.as_str()) {
            return Err(Error::usage(format!(
                "unknown algorithm {:?}: use one of {}",
                self.algo,
                ALGORITHMS.join(", ")
            )));
        }
        let env = self.make_env()?;
        for (key, list) in [("env.obs_mean", &e.obs_mean), ("env.obs_scale", &e.obs_scale)] {
            let channels = env.spec().obs();
            if list.len() != channels || list.iter().any(|x| !x.is_finite()) {
                return Err(Error::usage(format!(
                    "{key} must have {channels} finite numbers, one for each observation channel of {}",
                    e.name
                )));
            }
        }
        if e.obs_scale.iter().any(|s| !(1e-15..=1e15).contains(s)) {
            return Err(Error::usage("env.obs_scale must hold numbers between 1e-15 and 1e15"));
        }
        let frequency = |f: &f32| *f == 0.0 || (1e-9..=1e9).contains(&f.abs());
        if r.frequencies.is_empty() || r.frequencies.len() > 256 || !r.frequencies.iter().all(frequency) {
            return Err(Error::usage("rfm.frequencies must have 1 to 256 numbers up to 1e9"));
        }
        let limits = env.spec().low.iter().chain(&env.spec().high);
        if limits.into_iter().any(|limit| !(limit.abs() <= 1e30 && limit.abs() >= 1e-15 || *limit == 0.0)) {
            return Err(Error::usage(format!(
                "the action limits of {} do not fit an artefact: choose physics that keep them between 1e-15 and 1e30",
                e.name
            )));
        }
        for (key, value, low, high) in [
            ("total_timesteps", self.total_timesteps, 1, 1 << 50),
            ("env.action_repeat", e.action_repeat as u64, 1, env.spec().time_limit as u64),
            ("rfm.actor_hidden", r.actor_hidden as u64, 1, 1024),
            ("rfm.actor_layers", r.actor_layers as u64, 1, 8),
            ("rfm.critic_hidden", r.critic_hidden as u64, 1, 1024),
            ("rfm.critic_layers", r.critic_layers as u64, 1, 8),
            ("rfm.batch_size", r.batch_size as u64, 1, 65_536),
            ("rfm.actor_batch", r.actor_batch as u64, 1, 65_536),
            ("rfm.actor_delay", r.actor_delay, 1, 1_000),
            ("rfm.buffer_size", r.buffer_size as u64, 1, 100_000_000),
            ("rfm.num_envs", r.num_envs as u64, 1, 4096),
            ("rfm.block", r.block as u64, 1, 1_000_000),
            ("rfm.integration_steps", r.integration_steps as u64, 1, 1000),
            ("rfm.particles", r.particles as u64, 1, 1024),
            ("rfm.target_particles", r.target_particles as u64, 1, 4096),
            ("rfm.bridge", r.bridge as u64, 0, 4096),
            ("rfm.uniform", r.uniform as u64, 0, 4096),
            ("rfm.kernel", r.kernel as u64, 0, 4096),
            ("rfm.anneal_updates", r.anneal_updates, 1, 1 << 50),
            ("eval.episodes", v.episodes as u64, 1, 1_000_000),
            ("eval.every", v.every, 1, 1 << 50),
            ("eval.curve_episodes", v.curve_episodes as u64, 1, 1_000_000),
            ("eval.best_of", v.best_of as u64, 1, 4096),
        ] {
            if !(low..=high).contains(&value) {
                return Err(Error::usage(format!("{key} = {value}: it must lie between {low} and {high}")));
            }
        }
        // Largest finite numbers stand for "no limit"; every comparison fails on NaN.
        let (tiny, huge) = (1e-30, 1e30);
        for (key, value, low, high) in [
            ("env.reward_scale", e.reward_scale, tiny, huge),
            ("env.obs_clip", f64::from(e.obs_clip), 1.0 / 1024.0, 1024.0),
            ("rfm.actor_out_gain", r.actor_out_gain, 0.0, 1e3),
            ("rfm.policy_lr", r.policy_lr, 0.0, 1.0),
            ("rfm.q_lr", r.q_lr, 0.0, 1.0),
            ("rfm.max_grad_norm", r.max_grad_norm, 0.0, huge),
            ("rfm.gamma", r.gamma, 0.0, 1.0),
            ("rfm.tau", r.tau, 0.0, 1.0),
            ("rfm.updates_per_decision", r.updates_per_decision, 0.0, 1e3),
            ("rfm.t_min", r.t_min, 0.0, 1.0),
            ("rfm.t_max", r.t_max, 0.0, 1.0),
            ("rfm.train_t_min", r.train_t_min, 1e-4, 0.9999),
            ("rfm.train_t_max", r.train_t_max, 1e-4, 0.9999),
            ("rfm.latent_clip", r.latent_clip, 0.1, 1024.0),
            ("rfm.bandwidth", r.bandwidth, 1e-3, 1e3),
            ("rfm.uniform_bound", r.uniform_bound, 0.1, 0.999_999),
            ("rfm.eta", r.eta, -10.0, 10.0),
            ("rfm.ridge", r.ridge, 0.0, huge),
            ("rfm.clip", r.clip, 0.0, huge),
            ("rfm.temperature", r.temperature, 1e-6, 1e6),
            ("rfm.temperature_end", r.temperature_end, 1e-6, 1e6),
            ("rfm.target_ess", r.target_ess, 0.0, 1.0),
            ("rfm.target_entropy_per_dim", r.target_entropy_per_dim, -100.0, 100.0),
            ("rfm.temperature_lr", r.temperature_lr, 0.0, 1.0),
            ("rfm.log_temperature_min", r.log_temperature_min, -20.0, 20.0),
            ("rfm.log_temperature_max", r.log_temperature_max, -20.0, 20.0),
        ] {
            if !(low..=high).contains(&value) {
                return Err(Error::usage(format!("{key} = {value}: it must lie between {low} and {high}")));
            }
        }
        for (low_key, low, high_key, high) in [
            ("rfm.t_min", r.t_min, "rfm.t_max", r.t_max),
            ("rfm.train_t_min", r.train_t_min, "rfm.train_t_max", r.train_t_max),
            ("rfm.log_temperature_min", r.log_temperature_min, "rfm.log_temperature_max", r.log_temperature_max),
        ] {
            // The artefact wants an integration interval of at least 1/1024; the others lose nothing by it.
            if high - low < 1.0 / 1024.0 {
                return Err(Error::usage(format!(
                    "{low_key} = {low} must be below {high_key} = {high} by at least 1/1024: exchange them or widen the range"
                )));
            }
        }
        for (small_key, small, big_key, big) in [
            ("rfm.actor_batch", r.actor_batch, "rfm.batch_size", r.batch_size),
            ("rfm.batch_size", r.batch_size, "rfm.buffer_size", r.buffer_size),
        ] {
            if small > big {
                return Err(Error::usage(format!(
                    "{small_key} = {small} is more than {big_key} = {big}: lower the one or raise the other"
                )));
            }
        }
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
        Ok(self)
    }
}
#[cfg(test)]
mod tests {
    use crate::config::{Config, Estimator, Sources};
    use crate::{Error, Result};

    fn resolve(set: &[&str]) -> Result<Config> {
        let set: Vec<String> = set.iter().map(|s| s.to_string()).collect();
        Config::resolve(&Sources { set: &set, ..Sources::default() })
    }

    fn refusal(set: &[&str]) -> String {
        match resolve(set) {
            Err(Error::Usage(sentence)) => sentence,
            other => panic!("{set:?} gave {other:?}"),
        }
    }

    #[test]
    fn unusable_values_are_refused_by_name() {
        for (set, word) in [
            (vec!["rfm.particles=0"], "rfm.particles"),
            (vec!["rfm.gamma=nan"], "rfm.gamma"),
            (vec!["rfm.gamma=NaN"], "rfm.gamma"),
            (vec!["rfm.gamma=1.5"], "rfm.gamma"),
            (vec!["rfm.batch_size=256", "rfm.buffer_size=200"], "rfm.buffer_size"),
            (vec!["rfm.actor_batch=129"], "rfm.batch_size"),
            (vec!["rfm.bridge=0", "rfm.uniform=0", "rfm.kernel=0"], "at least one candidate"),
            (vec!["rfm.estimator=best"], "mixture"),
            (vec!["rfm.temperature_rule=cosine"], "annealed"),
            (vec!["rfm.target_twins=max"], "mean"),
            (vec!["rfm.actor_delay=0"], "rfm.actor_delay"),
            (vec!["rfm.target_ess=1.5"], "rfm.target_ess"),
            (vec!["rfm.estimator=auto", "rfm.control_variate=fisher"], "rfm.control_variate"),
            (vec!["preset=paper", "rfm.estimator=auto"], "\"none\""),
            (vec!["rfm.estimator=auto", "rfm.train_t_min=0.5"], "rfm.temperature_rule"),
            (vec!["rfm.estimator=smc", "rfm.train_t_min=0.6"], "rfm.temperature_rule"),
            (vec!["rfm.estimator=mala", "rfm.bridge=0", "rfm.uniform=1", "rfm.kernel=0"], "make them 3"),
            (vec!["rfm.estimator=mala", "rfm.bridge=10", "rfm.uniform=0", "rfm.kernel=0"], "make them 11"),
            (vec!["rfm.estimator=smc", "rfm.bridge=0", "rfm.uniform=1", "rfm.kernel=0"], "make them 2"),
            (vec!["rfm.estimator=smc", "rfm.bridge=13", "rfm.uniform=0", "rfm.kernel=0"], "make them 12"),
            (vec!["rfm.estimator=smc", "rfm.control_variate=diagonal", "rfm.ridge=0"], "1e-12"),
            (vec!["rfm.t_min=0.9", "rfm.t_max=0.1"], "below"),
            (vec!["rfm.train_t_min=0.6", "rfm.train_t_max=0.5"], "below"),
            (vec!["rfm.activation=sigmoid"], "gelu"),
            (vec!["rfm.frequencies=[]"], "rfm.frequencies"),
            (vec!["rfm.frequencies=[1, nan]"], "rfm.frequencies"),
            (vec!["rfm.frequencies=3"], "list"),
            (vec!["rfm.particles=2.5"], "whole number"),
            (vec!["rfm.particles=-1"], "whole number"),
            (vec!["env.max_torque=nan"], "max_torque"),
            (vec!["env.max_torque=-2"], "max_torque"),
            (vec!["env.dt=0"], "dt"),
            (vec!["env.obs_scale=[1.0]"], "env.obs_scale"),
            (vec!["env.obs_mean=[1.0, inf, 0.0]"], "env.obs_mean"),
            (vec!["env.reward_scale=inf"], "env.reward_scale"),
            (vec!["env.action_repeat=201"], "env.action_repeat"),
            (vec!["eval.episodes=0"], "eval.episodes"),
            (vec!["total_timesteps=0"], "total_timesteps"),
            (vec!["algo=ppo"], "rfm"),
            (vec!["env.name=cartpole-swingup"], "cartpole"),
            (vec!["preset=fast"], "paper"),
            (vec!["preset=1"], "preset"),
            (vec!["rfm.gamma"], "key=value"),
        ] {
            let sentence = refusal(&set);
            assert!(sentence.contains(word), "{set:?}: {sentence}");
            assert!(!sentence.contains('\n'), "{sentence}");
        }
    }

    #[test]
    fn what_counts_for_another_estimator_is_accepted() {
        let late = ["rfm.estimator=auto", "rfm.train_t_min=0.5", "rfm.temperature_rule=fixed"];
        let paper = ["preset=paper", "rfm.estimator=auto", "rfm.control_variate=none"];
        for estimator in ["smc", "mala"] {
            let set = format!("rfm.estimator={estimator}");
            resolve(&[set.as_str(), "rfm.control_variate=diagonal", "rfm.ridge=1e-12"]).unwrap();
        }
        for set in [&["rfm.estimator=auto"][..], &late, &paper] {
            assert_eq!(resolve(set).unwrap().rfm.estimator, Estimator::Auto);
        }
        assert_eq!(resolve(&[]).unwrap().rfm.estimator, Estimator::Mixture);
    }
}
