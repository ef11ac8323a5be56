//! The ranges of a configuration: what lies outside could not train, evaluate or be exported (`docs/format.md`).
//!
//! Every refusal names the key, its value and what it may be. Comparisons are written so that NaN fails them.

use super::Config;
use crate::{Error, Result};

/// Refuses whole numbers outside their ranges: key, value, smallest, largest.
pub(super) fn wholes(section: &str, values: &[(&str, u64, u64, u64)]) -> Result<()> {
    for &(key, value, low, high) in values {
        if !(low..=high).contains(&value) {
            let name = dotted(section, key);
            return Err(Error::usage(format!("{name} = {value}: it must lie between {low} and {high}")));
        }
    }
    Ok(())
}

/// Refuses numbers outside their ranges, NaN among them: key, value, smallest, largest. 1e30 stands for no limit.
pub(super) fn reals(section: &str, values: &[(&str, f64, f64, f64)]) -> Result<()> {
    for &(key, value, low, high) in values {
        if !(low..=high).contains(&value) {
            let name = dotted(section, key);
            return Err(Error::usage(format!("{name} = {value}: it must lie between {low} and {high}")));
        }
    }
    Ok(())
}

/// Refuses a number that is larger than another one may be.
pub(super) fn no_more(section: &str, small: (&str, usize), big: (&str, usize)) -> Result<()> {
    if small.1 <= big.1 {
        return Ok(());
    }
    Err(Error::usage(format!(
        "{} = {} is more than {} = {}: lower the one or raise the other",
        dotted(section, small.0),
        small.1,
        dotted(section, big.0),
        big.1
    )))
}

/// Refuses a range that is empty or narrower than 1/1024, which is what the artefact asks of its interval.
pub(super) fn rising(section: &str, low: (&str, f64), high: (&str, f64)) -> Result<()> {
    if high.1 - low.1 >= 1.0 / 1024.0 {
        return Ok(());
    }
    Err(Error::usage(format!(
        "{} = {} must be below {} = {} by at least 1/1024: exchange them or widen the range",
        dotted(section, low.0),
        low.1,
        dotted(section, high.0),
        high.1
    )))
}

/// Refuses time frequencies that no artefact holds.
pub(super) fn frequencies(section: &str, list: &[f32]) -> Result<()> {
    let frequency = |f: &f32| *f == 0.0 || (1e-9..=1e9).contains(&f.abs());
    if list.is_empty() || list.len() > 256 || !list.iter().all(frequency) {
        return Err(Error::usage(format!("{section}.frequencies must have 1 to 256 numbers up to 1e9")));
    }
    Ok(())
}

fn dotted(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_string() } else { format!("{section}.{key}") }
}

impl Config {
    /// Refuses values that no run could use.
    pub fn checked(self) -> Result<Self> {
        let (e, v) = (&self.env, &self.eval);
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
        let limits = env.spec().low.iter().chain(&env.spec().high);
        if limits.into_iter().any(|limit| !(limit.abs() <= 1e30 && limit.abs() >= 1e-15 || *limit == 0.0)) {
            return Err(Error::usage(format!(
                "the action limits of {} do not fit an artefact: choose physics that keep them between 1e-15 and 1e30",
                e.name
            )));
        }
        wholes(
            "",
            &[
                ("total_timesteps", self.total_timesteps, 1, 1 << 50),
                ("checkpoint_every", self.checkpoint_every, 1, 1 << 50),
                ("env.threads", e.threads as u64, 1, 1024),
                ("env.action_repeat", e.action_repeat as u64, 1, env.spec().time_limit as u64),
                ("eval.episodes", v.episodes as u64, 1, 1_000_000),
                ("eval.every", v.every, 1, 1 << 50),
                ("eval.curve_episodes", v.curve_episodes as u64, 1, 1_000_000),
                ("eval.best_of", v.best_of as u64, 1, 4096),
            ],
        )?;
        reals(
            "env",
            &[("reward_scale", e.reward_scale, 1e-30, 1e30), ("obs_clip", f64::from(e.obs_clip), 1.0 / 1024.0, 1024.0)],
        )?;
        self.algorithm.check()?;
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
            (vec!["env.name=cartpole-swingdown"], "cartpole"),
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
            assert_eq!(resolve(set).unwrap().rfm().unwrap().estimator, Estimator::Auto);
        }
        assert_eq!(resolve(&[]).unwrap().rfm().unwrap().estimator, Estimator::Mixture);
    }
}
