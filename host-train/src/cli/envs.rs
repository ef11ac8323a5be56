//! `envs`: what there is to train on.

use super::Output;
use crate::Result;
use crate::env;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Lists every environment with its channels, limits, defaults and physics.
pub(super) fn run(output: Output) -> Result<()> {
    let mut listed = Vec::new();
    for name in env::NAMES {
        let env = env::make(name, &BTreeMap::new())?;
        let s = env.spec();
        let limits = |v: &[f32]| v.iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
        let params = env.params();
        let physics: Vec<String> = params.iter().map(|(k, v)| format!("{k}={v}")).collect();
        output.line(&format!("{name}: {}", s.summary));
        output.line(&format!("    observation  {}", s.obs_names.join(", ")));
        let ranges = s.act_names.iter().zip(s.low.iter().zip(&s.high));
        let ranges: Vec<String> = ranges.map(|(n, (l, h))| format!("{n} in [{l}, {h}]")).collect();
        output.line(&format!("    action       {}", ranges.join(", ")));
        output.line(&format!(
            "    timing       control step {} s, {} to a decision, {} to an episode (time limit, no termination)",
            s.control_dt, s.action_repeat, s.time_limit
        ));
        output.line(&format!("    training     {} control steps by default", s.total_timesteps));
        output.line(&format!("    physics      {} (change with --set env.KEY=VALUE)", physics.join(" ")));
        let physics: serde_json::Map<String, Value> = params.iter().map(|&(k, v)| (k.to_string(), json!(v))).collect();
        listed.push(json!({
            "name": name,
            "summary": s.summary,
            "obs": s.obs_names,
            "act": s.act_names,
            "low": limits(&s.low),
            "high": limits(&s.high),
            "control_dt": s.control_dt,
            "action_repeat": s.action_repeat,
            "time_limit": s.time_limit,
            "total_timesteps": s.total_timesteps,
            "reward_scale": s.reward_scale,
            "physics": physics,
        }));
    }
    output.object(&json!({ "envs": listed }));
    Ok(())
}
