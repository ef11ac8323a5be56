//! `eval`: plays episodes with a trained policy: a policy file by the sampler that runs on the device, a run folder by its
//! policy file or, where its algorithm has none, by its newest checkpoint; the folder of several seeds seed by seed.
//!
//! A policy that lies in its run folder is evaluated with the physics it was trained with; `--set env.KEY=VALUE`
//! changes them, which shows how a policy stands a heavier arm or a weaker motor.

use super::train::spread;
use super::{Output, note, stage, tell_transfer};
use crate::checkpoint;
use crate::config::{Config, Sources};
use crate::env::{self, Decision};
use crate::evaluate::{AgentPlayer, ArtefactPlayer, Evaluation, Player, Protocol, evaluate_until, fits, record};
use crate::fleet;
use crate::policy::ArtefactBytes;
use crate::run::RunDir;
use crate::session::{self, describe, greedy};
use crate::stats::{Interval, Scores};
use crate::train::Trainer;
use crate::transitions;
use crate::{Error, Result};
use clap::Args;
use cpu_time::ProcessTime;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// Options of `eval`.
#[derive(Args, Clone, Debug)]
pub struct EvalArgs {
    /// The exported policy, a run folder, or the folder of several seeds
    #[arg(long, value_name = "FILE|RUN")]
    pub policy: PathBuf,
    /// Environment [default: the one it was trained on]
    #[arg(long, value_name = "NAME")]
    pub env: Option<String>,
    /// Episodes to average over
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub episodes: u32,
    /// Seed of start states and samples
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Samples from which the critic picks in the best-of return
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub best_of: u32,
    /// Change the physics, for example env.mass=1.2; may be repeated
    #[arg(long, value_name = "env.KEY=VALUE")]
    pub set: Vec<String>,
    /// Write the transitions of the plain samples, as `train --replay` reads them
    #[arg(long, value_name = "LOG.csv")]
    pub record: Option<PathBuf>,
}

/// Runs the command.
pub(super) fn run(args: &EvalArgs, output: Output) -> Result<()> {
    let seeds = fleet::seeds_in(&args.policy);
    if seeds.is_empty() {
        let (evaluation, object, label) = one(args, &args.policy)?;
        output.line(&format!("{}: {}", args.policy.display(), describe(&evaluation, &label)));
        tell_spread(&evaluation, output);
        output.object(&object);
        return Ok(());
    }
    if args.record.is_some() {
        return Err(Error::usage(format!(
            "--record is for one policy, and {} holds several seeds: name one of them",
            args.policy.display()
        )));
    }
    let (mut single, mut greedy, mut objects) = (Vec::new(), Vec::new(), Vec::new());
    for (seed, path) in &seeds {
        let (evaluation, object, label) = one(args, path)?;
        output.line(&format!("seed {seed}: {}", describe(&evaluation, &label)));
        tell_ways(&evaluation, output);
        single.push(evaluation.plain().mean);
        greedy.extend(evaluation.best().map(|best| best.mean));
        objects.push(object);
    }
    let (plain, best) = (Scores::of(&single), Scores::of(&greedy));
    output.line(&format!("{} seeds, means of each: single sample {}", seeds.len(), spread(&plain)));
    if !greedy.is_empty() {
        output.line(&format!("{} seeds, means of each: greedy {}", seeds.len(), spread(&best)));
    }
    output.object(&json!({
        "seeds": seeds.len(),
        "single": scores(&plain),
        "greedy": (!greedy.is_empty()).then(|| scores(&best)),
        "return_mean": plain.mean,
        "return_best_of": (!greedy.is_empty()).then_some(best.mean),
        "runs": objects,
    }));
    Ok(())
}

/// Plays one policy; the evaluation, its JSON object, and what its greedy choice is.
fn one(args: &EvalArgs, path: &Path) -> Result<(Evaluation, Value, String)> {
    let started = ProcessTime::now();
    let (episodes, best_of) = (args.episodes as usize, args.best_of as usize);
    let protocol = Protocol { episodes, seed: args.seed, best_of };
    let changed = Changed { env: args.env.as_deref(), set: &args.set };
    let ((name, evaluation), Origin { trained, run_dir, policy }) = with_player(path, changed, |player, mut env| {
        Ok((env.spec().name.clone(), play(args, player, &mut env, protocol)?))
    })?;
    let (plain, best) = (evaluation.plain(), evaluation.best());
    let object = json!({
        "env": name,
        "algo": trained.as_ref().map(|config| config.algo()),
        "seed": args.seed,
        "total_timesteps": trained.as_ref().map(|config| config.total_timesteps),
        "cpu_seconds": started.elapsed().as_secs_f64(),
        "return_mean": plain.mean,
        "return_ci95": plain.ci95.is_finite().then_some(plain.ci95),
        "return_best_of": best.map(|b| b.mean),
        "single": scores(&Scores::of(&evaluation.returns)),
        "greedy": evaluation.best_of.as_deref().map(|returns| scores(&Scores::of(returns))),
        "episodes": plain.n,
        "ways": evaluation.shares().map(|(single, greedy)| json!({ "single": single, "greedy": greedy })),
        "run_dir": run_dir,
        "policy": policy,
    });
    let label = match &trained {
        Some(config) if policy.is_none() => {
            let mut config = config.clone();
            config.eval.best_of = best_of;
            greedy(&config)
        }
        _ => session::best_of(best_of),
    };
    Ok((evaluation, object, label))
}

/// What is not as the policy was trained: another environment, and `env.KEY=VALUE`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Changed<'a> {
    pub(super) env: Option<&'a str>,
    pub(super) set: &'a [String],
}

/// Where a policy comes from.
pub(super) struct Origin {
    /// The configuration of its run, where it lies in the folder of one.
    pub(super) trained: Option<Config>,
    /// That folder.
    pub(super) run_dir: Option<PathBuf>,
    /// Its file; none where a checkpoint played.
    pub(super) policy: Option<PathBuf>,
}

/// Hands a policy and its environment to `play`: by its file, or, for a run whose algorithm has none, by its newest
/// checkpoint. A policy in its run's folder has the physics that it was trained with.
pub(super) fn with_player<T>(
    path: &Path,
    changed: Changed<'_>,
    play: impl FnOnce(&mut dyn Player, Decision) -> Result<T>,
) -> Result<(T, Origin)> {
    let file = if path.is_dir() { path.join("policy.flw") } else { path.to_path_buf() };
    let run_dir = file.parent().filter(|dir| dir.join("config.toml").is_file()).map(Path::to_path_buf);
    let trained = run_dir.as_ref().map(|dir| config_of(&dir.join("config.toml"))).transpose()?;
    let physics = |name: &str| -> Result<BTreeMap<String, f64>> {
        let same = trained.as_ref().filter(|config| config.env.name == name);
        let mut physics = same.map(|config| config.env.physics.clone()).unwrap_or_default();
        for pair in changed.set {
            let (key, value) = assignment(pair)?;
            physics.insert(key, value);
        }
        Ok(physics)
    };
    match &trained {
        Some(config) if path.is_dir() && !file.is_file() => {
            // No artefact: the agent itself plays, out of the newest checkpoint.
            let name = changed.env.unwrap_or(&config.env.name);
            let env = Decision::new(env::make(name, &physics(name)?)?, config.env.action_repeat);
            if name != config.env.name {
                let own = config.make_env()?;
                let [obs, act] = [&own.spec().obs_names, &own.spec().act_names]
                    .map(|names| names.iter().map(String::as_str).collect());
                fits(&config.env.name, (obs, act), env.spec())?;
                tell_transfer(&config.env.name, name);
            }
            let mut trainer = restored(path, config)?;
            let normaliser = trainer.normaliser().clone();
            let mut player = AgentPlayer::new(trainer.agent_mut(), &normaliser, &env);
            let done = play(&mut player, env)?;
            Ok((done, Origin { trained, run_dir, policy: None }))
        }
        _ => {
            let bytes = ArtefactBytes::read(&file)?;
            let artefact = bytes.artefact()?;
            let name = changed.env.unwrap_or(artefact.name());
            let env = stage(&artefact, Some(name), &physics(name)?)?;
            let done = play(&mut ArtefactPlayer::new(artefact)?, env)?;
            Ok((done, Origin { trained, run_dir, policy: Some(file) }))
        }
    }
}

/// Plays the episodes and, where it was asked for, records them.
fn play(args: &EvalArgs, player: &mut dyn Player, env: &mut Decision, protocol: Protocol) -> Result<Evaluation> {
    note(&format!("playing {}: {} episodes with seed {}", env.spec().name, protocol.episodes, protocol.seed));
    let evaluation = evaluate_until(player, env, protocol, &AtomicBool::new(false))?;
    if let Some(path) = &args.record {
        let rows = record(player, env, protocol.episodes, protocol.seed)?;
        transitions::write(path, env, &rows)?;
        note(&format!("{} transitions are in {}", rows.len(), path.display()));
    }
    Ok(evaluation)
}

/// The trainer of a run as its newest good checkpoint has it.
fn restored(path: &Path, config: &Config) -> Result<Trainer> {
    let Some(mut checkpoint) = checkpoint::newest(&RunDir::open(path)?.checkpoints())?.newest else {
        return Err(Error::failure(format!(
            "{} has neither a policy nor a checkpoint yet: `resume` starts it again",
            path.display()
        )));
    };
    let mut trainer = Trainer::new(config)?;
    checkpoint.restore(&mut trainer)?;
    Ok(trainer)
}

/// The episodes' interquartile mean, interval and extremes, and the ways they took.
fn tell_spread(evaluation: &Evaluation, output: Output) {
    output.line(&format!("  single sample  {}", spread(&Scores::of(&evaluation.returns))));
    if let Some(returns) = &evaluation.best_of {
        output.line(&format!("  greedy         {}", spread(&Scores::of(returns))));
    }
    tell_ways(evaluation, output);
}

/// The ways that the episodes took, where there are several.
pub(super) fn tell_ways(evaluation: &Evaluation, output: Output) {
    let Some((single, greedy)) = evaluation.shares() else { return };
    for (name, shares) in [("single sample", single), ("greedy", greedy)] {
        let shares: Vec<String> = shares.iter().map(|(way, share)| format!("{way} {:.0} %", 100.0 * share)).collect();
        if !shares.is_empty() {
            output.line(&format!("  ways, {name}: {}", shares.join(", ")));
        }
    }
}

fn scores(scores: &Scores) -> Value {
    let known = |i: Interval| i.is_known().then_some([i.low, i.high]);
    json!({
        "mean": scores.mean,
        "interval95": known(scores.mean_interval),
        "iqm": scores.iqm,
        "iqm_interval95": known(scores.iqm_interval),
        "min": scores.min,
        "max": scores.max,
    })
}

/// The configuration that lies beside a policy.
fn config_of(path: &Path) -> Result<Config> {
    Config::resolve(&Sources { file: Some(path), ..Sources::default() })
}

/// `env.KEY=VALUE` of `--set`.
pub(super) fn assignment(pair: &str) -> Result<(String, f64)> {
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
