//! `eval`: plays episodes with an exported policy, by the sampler that runs on the device.
//!
//! A policy that lies in its run folder is evaluated with the physics it was trained with; `--set env.KEY=VALUE`
//! changes them, which shows how a policy stands a heavier arm or a weaker motor.

use super::{EvalArgs, Output, note};
use crate::config::{Config, Sources};
use crate::evaluate::{ArtefactPlayer, Protocol, env_for, evaluate, record};
use crate::policy::ArtefactBytes;
use crate::session::describe;
use crate::transitions;
use crate::{Error, Result};
use cpu_time::ProcessTime;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

/// Runs the command.
pub(super) fn run(args: &EvalArgs, output: Output) -> Result<()> {
    let started = ProcessTime::now();
    let bytes = ArtefactBytes::read(&args.policy)?;
    let artefact = bytes.artefact()?;
    let name = args.env.as_deref().unwrap_or(artefact.name());
    let run_dir = args.policy.parent().filter(|dir| dir.join("config.toml").is_file());
    let trained = run_dir.map(|dir| config_of(&dir.join("config.toml"))).transpose()?;
    let mut physics = BTreeMap::new();
    if let Some(config) = trained.as_ref().filter(|config| config.env.name == name) {
        physics.clone_from(&config.env.physics);
    }
    for pair in &args.set {
        let (key, value) = assignment(pair)?;
        physics.insert(key, value);
    }
    let mut env = env_for(&artefact, Some(name), &physics)?;
    let (episodes, best_of) = (args.episodes as usize, args.best_of as usize);
    note(&format!("playing {name}: {episodes} with seed {}", args.seed));
    let evaluation = evaluate(&artefact, &mut env, Protocol { episodes, seed: args.seed, best_of })?;
    if let Some(path) = &args.record {
        let rows = record(&mut ArtefactPlayer::new(artefact)?, &mut env, episodes, args.seed)?;
        transitions::write(path, env.spec(), &rows)?;
        note(&format!("{} transitions are in {}", rows.len(), path.display()));
    }
    let (plain, best) = (evaluation.plain(), evaluation.best());
    output.line(&format!("{}: {}", args.policy.display(), describe(&evaluation, best_of)));
    output.object(&json!({
        "env": name,
        "algo": trained.as_ref().map(|config| config.algo()),
        "seed": args.seed,
        "total_timesteps": trained.as_ref().map(|config| config.total_timesteps),
        "cpu_seconds": started.elapsed().as_secs_f64(),
        "return_mean": plain.mean,
        "return_ci95": plain.ci95.is_finite().then_some(plain.ci95),
        "return_best_of": best.map(|b| b.mean),
        "episodes": plain.n,
        "ways": evaluation.shares().map(|(single, greedy)| json!({ "single": single, "greedy": greedy })),
        "run_dir": run_dir,
        "policy": args.policy,
    }));
    Ok(())
}

/// The configuration that lies beside a policy.
fn config_of(path: &Path) -> Result<Config> {
    Config::resolve(&Sources { file: Some(path), ..Sources::default() })
}

/// `env.KEY=VALUE` of `--set`.
fn assignment(pair: &str) -> Result<(String, f64)> {
    let parsed = pair.split_once('=').and_then(|(key, value)| {
        let key = key.trim().strip_prefix("env.")?;
        Some((key.to_string(), value.trim().parse().ok()?))
    });
    parsed.ok_or_else(|| {
        Error::usage(format!(
            "--set {pair}: an evaluation takes physics only, as --set env.KEY=NUMBER; `envs` lists them"
        ))
    })
}
