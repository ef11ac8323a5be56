//! `envs`: what there is to train on.

use super::Output;
use crate::Result;
use crate::env;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What every environment has beside the parameters that are listed with it.
const VARIATIONS: [(&str, &str); 3] = [
    ("delay", "control steps from a decision to its effect"),
    ("sensor_noise", "standard deviation of the sensors' error, in units of the normaliser"),
    ("KEY_spread", "KEY is drawn at every reset from KEY*(1-spread) to KEY*(1+spread), for each key of an environment"),
];

/// Lists every environment with its channels, limits, defaults and physics.
pub(super) fn run(output: Output) -> Result<()> {
    let mut listed = Vec::new();
    for name in env::known() {
        let env = env::make(name, &BTreeMap::new())?;
        let s = env.spec();
        let limits = |v: &[f32]| v.iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
        let mut params = env.params();
        params.retain(|(key, _)| !env::is_variation(key));
        let physics: Vec<String> = params.iter().map(|(k, v)| format!("{k}={v}")).collect();
        output.line(&format!("{name}: {}", s.summary));
        output.line(&format!("    observation  {}", s.obs_names.join(", ")));
        let ranges = s.act_names.iter().zip(s.low.iter().zip(&s.high));
        let ranges: Vec<String> = ranges.map(|(n, (l, h))| format!("{n} in [{l}, {h}]")).collect();
        output.line(&format!("    action       {}", ranges.join(", ")));
        output.line(&format!(
            "    timing       control step {} s, {} to a decision, at most {} to an episode",
            s.control_dt, s.action_repeat, s.time_limit
        ));
        output.line(&format!("    training     {} control steps by default", s.total_timesteps));
        output.line(&format!("    physics      {}", physics.join(" ")));
        let physics: serde_json::Map<String, Value> = params.into_iter().map(|(k, v)| (k, json!(v))).collect();
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
    output.line(
        "gym:ID: any continuous Gymnasium environment, in a Python process (FLOWLET_PYTHON names the interpreter)",
    );
    output.line("physics change with --set env.KEY=VALUE; every environment also has, all 0 by default:");
    for (key, meaning) in VARIATIONS {
        output.line(&format!("    {key:<13}{meaning}"));
    }
    let variations: BTreeMap<&str, &str> = VARIATIONS.into_iter().collect();
    output.object(&json!({ "envs": listed, "variations": variations }));
    Ok(())
}
