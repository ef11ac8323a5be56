//! `finetune`: lets a policy go on learning on a changed plant by the learner that runs on the device, and compares it
//! with the factory's policy and with one that is trained from scratch for that plant.
//!
//! Writes `learned.flw`, `progress.csv`, `curve.svg` and `finetune.json` into a folder of its own. The policy from scratch is
//! kept beside that folder and trained once for a plant and seed. Episodes of the evaluations are those of no training.

use super::eval::assignment;
use super::{FinetuneArgs, Output, note};
use crate::config::{Config, Sources};
use crate::env::{Decision, make};
use crate::evaluate::{ArtefactPlayer, env_for, play_plain};
use crate::finetune::curve::{write_curve, write_progress};
use crate::finetune::{Options, Outcome, Row, finetune, mode, session_config, set};
use crate::policy::ArtefactBytes;
use crate::run::write_atomic;
use crate::session;
use crate::stats::Summary;
use crate::train::Trainer;
use crate::{Error, Result};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Added to the seed for the evaluations' episodes.
const EVALUATION: u64 = 0x5eed_3000_0000;

/// Runs the command.
pub(super) fn run(args: &FinetuneArgs, output: Output) -> Result<()> {
    let bytes = ArtefactBytes::read(&ArtefactBytes::place(&args.policy)?)?;
    let artefact = bytes.artefact()?;
    let name = args.env.clone().unwrap_or_else(|| artefact.name().to_string());
    let (mut physics, mut of_env, mut constants) = (BTreeMap::new(), Vec::new(), Vec::new());
    for pair in &args.set {
        if let Some((key, value)) = pair.strip_prefix("finetune.").and_then(|pair| pair.split_once('=')) {
            constants.push((key.trim(), value.trim()));
        } else {
            let (key, value) = assignment(pair)?;
            physics.insert(key, value);
            of_env.push(pair.clone());
        }
    }
    let mut env = single_steps(&name, &physics)?;
    let mut apart = env_for(&artefact, Some(&name), &physics)?;
    let mut config = mode(&args.mode, env.spec(), &artefact)?;
    let mut session = session_config(env.spec())?;
    for (key, value) in constants {
        set(&mut config, &mut session, key, value)?;
    }
    let folder = folder(args.out.as_deref(), &name, &args.mode, args.seed)?;
    let options = Options {
        seed: args.seed,
        seconds: args.seconds,
        every: args.every,
        episodes: [args.episodes as usize, 5 * args.episodes as usize],
        eval_seed: EVALUATION + args.seed,
        reward_scale: env.spec().reward_scale,
        session,
    };
    let mut rows: Vec<Row> = Vec::new();
    let title = format!("fine-tuning {name}, {}, seed {}", args.mode, args.seed);
    let outcome = finetune(&artefact, config, &options, (&mut env, &mut apart), &mut |row| {
        note(&format!(
            "{:6.0} s, {:6} updates: deployed {:.1} +- {:.1}, candidate {:.1} +- {:.1}, TD error {:.3}",
            row.seconds,
            row.report.updates,
            row.kept.mean,
            row.kept.ci95,
            row.acting.mean,
            row.acting.ci95,
            row.report.learner.td_error
        ));
        rows.push(*row);
        make_folder(&folder)?;
        write_progress(&folder.join("progress.csv"), &rows)
    })?;
    let learned = bytes.with_params(&outcome.params)?;
    write_atomic(&folder.join("learned.flw"), learned.as_slice())?;
    let scratch = if args.without_scratch {
        None
    } else {
        let policy = scratch(&folder, &name, &of_env, args.seed)?;
        Some(returns(&policy, &mut apart, &options)?)
    };
    write_curve(&folder.join("curve.svg"), &title, &rows, scratch.map(|s| s.mean))?;
    tell(&outcome, scratch, &folder, output);
    let (first, last) = ends(&outcome)?;
    let object = json!({
        "env": name,
        "set": of_env,
        "seed": args.seed,
        "mode": args.mode,
        "return_before": first.kept.mean,
        "return_before_ci95": first.kept.ci95,
        "return_after": last.kept.mean,
        "return_after_ci95": last.kept.ci95,
        "return_acting": last.acting.mean,
        "return_scratch": scratch.map(|s| s.mean),
        "recovered": scratch.and_then(|s| recovered(first.kept.mean, last.kept.mean, s.mean)),
        "robot_seconds": last.seconds,
        "updates": last.report.updates,
        "ram_bytes": outcome.ram_bytes,
        "resets": outcome.resets,
        "trials": outcome.trials[0],
        "promoted": outcome.trials[1],
        "verdicts": outcome.verdicts.iter().map(|(t, v)| json!([t, format!("{v:?}")])).collect::<Vec<_>>(),
        "episodes": options.episodes[1],
        "run_dir": folder,
    });
    write_atomic(&folder.join("finetune.json"), object.to_string().as_bytes())?;
    output.object(&object);
    Ok(())
}

/// The robot itself: one control step at a time.
fn single_steps(name: &str, physics: &BTreeMap<String, f64>) -> Result<Decision> {
    Ok(Decision::new(make(name, physics)?, 1))
}

/// The share of the way from the factory's return to that from scratch; none where there is no way to go.
fn recovered(before: f64, after: f64, scratch: f64) -> Option<f64> {
    (scratch > before).then(|| (after - before) / (scratch - before))
}

fn ends(outcome: &Outcome) -> Result<(Row, Row)> {
    let ends = outcome.rows.first().zip(outcome.rows.last());
    ends.map(|(first, last)| (*first, *last)).ok_or_else(|| Error::failure("nothing was evaluated"))
}

fn tell(outcome: &Outcome, scratch: Option<Summary>, folder: &Path, output: Output) {
    let Ok((first, last)) = ends(outcome) else { return };
    let (before, after) = (first.kept, last.kept);
    output.line(&format!(
        "return {:.1} +- {:.1} before, {:.1} +- {:.1} after {:.0} s of robot time and {} updates, {} episodes each",
        before.mean, before.ci95, after.mean, after.ci95, last.seconds, last.report.updates, after.n
    ));
    if let Some(scratch) = scratch {
        let share = recovered(before.mean, after.mean, scratch.mean)
            .map_or("less than the factory's policy: there is nothing to bring back".to_string(), |share| {
                format!("{:.0} % of the way there was brought back", 100.0 * share)
            });
        output
            .line(&format!("trained from scratch for this plant: {:.1} +- {:.1}, {share}", scratch.mean, scratch.ci95));
    }
    output.line(&format!(
        "the learner takes {} bytes of RAM; of {} trials {} ended in a promotion, {} resets; {}",
        outcome.ram_bytes,
        outcome.trials[0],
        outcome.trials[1],
        outcome.resets,
        folder.display()
    ));
}

/// Makes the folder where it is not there yet: only when there is something to write.
fn make_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(|e| {
        Error::failure(format!("cannot make the folder {} ({e}): choose another with --out", path.display()))
    })
}

/// Where a new folder for what the command writes may be.
fn folder(out: Option<&Path>, env: &str, mode: &str, seed: u64) -> Result<PathBuf> {
    let name = format!("finetune-{}-{mode}-{seed}", env.replace([':', '/'], "-"));
    let mut path = out.map_or_else(|| Path::new("runs").join(&name), Path::to_path_buf);
    let mut number = 2;
    while out.is_none() && path.exists() {
        path = Path::new("runs").join(format!("{name}.{number}"));
        number += 1;
    }
    let filled = path.read_dir().is_ok_and(|mut entries| entries.next().is_some());
    if filled || path.is_file() {
        return Err(Error::usage(format!("{} is there already: give --out a new folder", path.display())));
    }
    Ok(path)
}

/// A policy that is trained from scratch for this plant by the defaults of `train`, once; kept beside the folder.
fn scratch(folder: &Path, env: &str, set: &[String], seed: u64) -> Result<ArtefactBytes> {
    let config = Config::resolve(&Sources { env: Some(env), seed: Some(seed), set, ..Sources::default() })?;
    let digest = crc::Crc::<u64>::new(&crc::CRC_64_XZ).checksum(config.to_toml().as_bytes());
    let path = folder.with_file_name(format!("scratch-{}-{digest:016x}.flw", env.replace([':', '/'], "-")));
    if path.is_file() {
        return ArtefactBytes::read(&path);
    }
    note(&format!(
        "training from scratch for this plant, {} control steps, into {}",
        config.total_timesteps,
        path.display()
    ));
    let mut trainer = Trainer::new(&config)?;
    trainer.run(&mut ())?;
    let policy = session::artefact(&trainer)?.ok_or_else(|| Error::failure("the training left no policy"))?;
    write_atomic(&path, policy.as_slice())?;
    Ok(policy)
}

/// Returns of a policy in the episodes of the last evaluation.
fn returns(policy: &ArtefactBytes, env: &mut Decision, options: &Options) -> Result<Summary> {
    let mut player = ArtefactPlayer::new(policy.artefact()?)?;
    Ok(Summary::of(&play_plain(&mut player, env, options.episodes[1], options.eval_seed, &mut |_| {})?))
}
