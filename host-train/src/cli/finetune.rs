//! `finetune`: lets a policy go on learning on a changed plant by the learner that runs on the device, and compares it
//! with the factory's policy and with one that is trained from scratch for that plant.
//!
//! Writes `learned.flw`, `progress.csv`, `curve.svg` and `finetune.json` into a folder of its own, of several seeds into one
//! each, with a curve and a summary over them above. The policy from scratch is kept beside a seed's folder and trained once
//! for a plant and seed. Episodes of the evaluations are those of no training.

use super::eval::assignment;
use super::{Output, note};
use crate::config::{Config, Sources};
use crate::env::{Decision, make};
use crate::evaluate::{ArtefactPlayer, env_for, play_plain};
use crate::finetune::curve::{lines, lines_over_seeds, write_curve, write_progress};
use crate::finetune::{Options, Outcome, Reward, Row, finetune, mode, session_config, set};
use crate::policy::ArtefactBytes;
use crate::run::write_atomic;
use crate::session;
use crate::stats::Summary;
use crate::train::Trainer;
use crate::{Error, Result};
use clap::Args;
use flowlet::finetune::Config as Constants;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Added to the seed for the evaluations' episodes.
const EVALUATION: u64 = 0x5eed_3000_0000;

/// Options of `finetune`.
#[derive(Args, Clone, Debug)]
pub struct FinetuneArgs {
    /// The factory's policy, with its critics, or a run folder
    #[arg(long, value_name = "FILE|RUN")]
    pub policy: PathBuf,
    /// Environment [default: the one it was trained on]
    #[arg(long, value_name = "NAME")]
    pub env: Option<String>,
    /// Change the physics or the learner, for example env.arm_inertia=1.4 or finetune.batch=8; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Seed of everything random
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Number of seeds, from --seed on, each in a folder of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub seeds: u32,
    /// Seeds side by side; the results do not depend on it [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub jobs: Option<u32>,
    /// What is trained, and in how much memory: adam, lean, all or last
    #[arg(long, value_name = "NAME", default_value = "adam")]
    pub mode: String,
    /// Robot time, s
    #[arg(long, value_name = "S", default_value_t = 900.0)]
    pub seconds: f64,
    /// Robot time between evaluations, s
    #[arg(long, value_name = "S", default_value_t = 60.0)]
    pub every: f64,
    /// The folder for the results [default: a new one under runs/]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Train no policy from scratch to compare with
    #[arg(long)]
    pub without_scratch: bool,
    /// Where policies from scratch are kept, one for a plant and seed [default: beside the results]
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
    /// Episodes of an evaluation; five times as many before and after
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub episodes: u32,
}

/// What the command is asked for, checked.
struct Plan<'a> {
    args: &'a FinetuneArgs,
    bytes: ArtefactBytes,
    name: String,
    physics: BTreeMap<String, f64>,
    /// The same as words, for `train`.
    of_env: Vec<String>,
    config: Constants,
    options: Options,
}

/// One seed's run.
struct Run {
    seed: u64,
    rows: Vec<Row>,
    scratch: Option<Summary>,
    object: Value,
}

/// What `--set` asks for: physics, the same as words, and constants of the learner.
pub(super) struct Settings<'a> {
    pub physics: BTreeMap<String, f64>,
    of_env: Vec<String>,
    pub constants: Vec<(&'a str, &'a str)>,
}

impl<'a> Settings<'a> {
    pub(super) fn of(pairs: &'a [String]) -> Result<Self> {
        let mut all = Self { physics: BTreeMap::new(), of_env: Vec::new(), constants: Vec::new() };
        for pair in pairs {
            if let Some((key, value)) = pair.strip_prefix("finetune.").and_then(|pair| pair.split_once('=')) {
                all.constants.push((key.trim(), value.trim()));
            } else {
                let (key, value) = assignment(pair)?;
                all.physics.insert(key, value);
                all.of_env.push(pair.clone());
            }
        }
        Ok(all)
    }
}

/// Runs the command.
pub(super) fn run(args: &FinetuneArgs, output: Output) -> Result<()> {
    let plan = Plan::of(args)?;
    let folder = folder(args.out.as_deref(), &plan.name, &args.mode, args.seed)?;
    let seeds: Vec<u64> = (0..u64::from(args.seeds)).map(|i| args.seed.wrapping_add(i)).collect();
    if let [seed] = seeds[..] {
        let run = plan.one(seed, &folder, output)?;
        output.object(&run.object);
        return Ok(());
    }
    let jobs = args.jobs.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), |n| n as usize);
    let (next, runs) = (Mutex::new(seeds.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(seeds.len()) {
            scope.spawn(|| {
                while let Some(&seed) = next.lock().ok().and_then(|mut next| next.next()) {
                    let run = plan.one(seed, &folder.join(format!("seed-{seed}")), output);
                    if let Ok(mut runs) = runs.lock() {
                        runs.push(run);
                    }
                }
            });
        }
    });
    // A thread that panicked has already ended the program through the scope.
    let mut runs = runs.into_inner().unwrap_or_default().into_iter().collect::<Result<Vec<Run>>>()?;
    runs.sort_by_key(|run| run.seed);
    plan.sum_up(&runs, &folder, output)
}

impl<'a> Plan<'a> {
    fn of(args: &'a FinetuneArgs) -> Result<Self> {
        let bytes = ArtefactBytes::read(&ArtefactBytes::place(&args.policy)?)?;
        let artefact = bytes.artefact()?;
        let name = args.env.clone().unwrap_or_else(|| artefact.name().to_string());
        let Settings { physics, of_env, constants } = Settings::of(&args.set)?;
        let env = env_for(&artefact, Some(&name), &physics)?;
        let mut config = mode(&args.mode, env.spec(), &artefact)?;
        let mut options = Options {
            seed: args.seed,
            seconds: args.seconds,
            every: args.every,
            episodes: [args.episodes as usize, 5 * args.episodes as usize],
            eval_seed: 0,
            reward_scale: env.spec().reward_scale,
            reward: Reward::Task,
            session: session_config(env.spec())?,
        };
        for (key, value) in constants {
            set(&mut config, &mut options, key, value)?;
        }
        Ok(Self { args, name, physics, of_env, config, options, bytes })
    }

    /// Fine-tunes with one seed into a folder.
    fn one(&self, seed: u64, folder: &Path, output: Output) -> Result<Run> {
        let artefact = self.bytes.artefact()?;
        let mut env = Decision::new(make(&self.name, &self.physics)?, 1);
        let mut apart = env_for(&artefact, Some(&self.name), &self.physics)?;
        let options = Options { seed, eval_seed: EVALUATION.wrapping_add(seed), ..self.options };
        let mut rows: Vec<Row> = Vec::new();
        let several = if self.args.seeds > 1 { format!("seed {seed}: ") } else { String::new() };
        let outcome = finetune(&artefact, self.config, &options, (&mut env, &mut apart), &mut |row| {
            note(&format!(
                "{several}{:6.0} s, {:6} updates: deployed {:.1} +- {:.1}, candidate {:.1} +- {:.1}, TD error {:.3}",
                row.seconds,
                row.report.updates,
                row.kept.mean,
                row.kept.ci95,
                row.acting.mean,
                row.acting.ci95,
                row.report.learner.td_error
            ));
            rows.push(*row);
            make_folder(folder)?;
            write_progress(&folder.join("progress.csv"), &rows)
        })?;
        let learned = self.bytes.with_params(&outcome.params)?;
        write_atomic(&folder.join("learned.flw"), learned.as_slice())?;
        let scratch = if self.args.without_scratch {
            None
        } else {
            let beside = self.args.scratch.clone().unwrap_or_else(|| folder.with_file_name(""));
            let policy = scratch(&beside, &self.name, &self.of_env, seed)?;
            Some(returns(&policy, &mut apart, &options)?)
        };
        let title = format!("fine-tuning {}, {}, seed {seed}", self.name, self.args.mode);
        write_curve(&folder.join("curve.svg"), &title, &lines(&rows, scratch.map(|s| s.mean)))?;
        if self.args.seeds == 1 {
            tell(&outcome, scratch, folder, output);
        }
        let (first, last) = ends(&outcome)?;
        let object = json!({
            "env": self.name,
            "set": self.args.set,
            "seed": seed,
            "mode": self.args.mode,
            "return_before": first.kept.mean,
            "return_before_ci95": first.kept.ci95,
            "return_after": last.kept.mean,
            "return_after_ci95": last.kept.ci95,
            "return_candidate": last.acting.mean,
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
        Ok(Run { seed, rows, scratch, object })
    }

    /// Means over seeds, with their picture.
    fn sum_up(&self, runs: &[Run], folder: &Path, output: Output) -> Result<()> {
        let before: Vec<f64> = runs.iter().filter_map(|run| run.rows.first()).map(|row| row.kept.mean).collect();
        let after: Vec<f64> = runs.iter().filter_map(|run| run.rows.last()).map(|row| row.kept.mean).collect();
        let scratch: Vec<f64> = runs.iter().filter_map(|run| run.scratch).map(|scratch| scratch.mean).collect();
        // Every seed's way is measured to the mean of the policies from scratch, which differ among themselves.
        let aim = (!scratch.is_empty()).then(|| Summary::of(&scratch).mean);
        let shares: Option<Vec<f64>> =
            aim.and_then(|aim| before.iter().zip(&after).map(|(b, a)| recovered(*b, *a, aim)).collect());
        let title = format!("fine-tuning {}, {}, {} seeds", self.name, self.args.mode, runs.len());
        let rows: Vec<&[Row]> = runs.iter().map(|run| &run.rows[..]).collect();
        write_curve(&folder.join("curve.svg"), &title, &lines_over_seeds(&rows, aim))?;
        let interval = |values: &[f64]| {
            let s = Summary::of(values);
            json!({ "mean": s.mean, "ci95": s.ci95, "each": values })
        };
        for (run, after) in runs.iter().zip(&after) {
            let share = match (aim, run.rows.first()) {
                (Some(aim), Some(first)) => recovered(first.kept.mean, *after, aim),
                _ => None,
            };
            output.line(&format!(
                "seed {}: {:.1} before, {after:.1} after{}",
                run.seed,
                run.rows.first().map_or(f64::NAN, |row| row.kept.mean),
                share.map_or(String::new(), |share| format!(", {:.0} % of the way back", 100.0 * share)),
            ));
        }
        let object = json!({
            "env": self.name,
            "set": self.args.set,
            "mode": self.args.mode,
            "seeds": runs.iter().map(|run| run.seed).collect::<Vec<_>>(),
            "return_before": interval(&before),
            "return_after": interval(&after),
            "return_scratch": aim.map(|_| interval(&scratch)),
            "recovered": shares.map(|shares| interval(&shares)),
            "robot_seconds": self.args.seconds,
            "ram_bytes": runs.first().map(|run| run.object["ram_bytes"].clone()),
            "runs": runs.iter().map(|run| run.object.clone()).collect::<Vec<_>>(),
            "run_dir": folder,
        });
        write_atomic(&folder.join("finetune.json"), object.to_string().as_bytes())?;
        output.line(&folder.display().to_string());
        output.object(&object);
        Ok(())
    }
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
pub(super) fn make_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(|e| {
        Error::failure(format!("cannot make the folder {} ({e}): choose another with --out", path.display()))
    })
}

/// Where a new folder for what the command writes may be.
pub(super) fn folder(out: Option<&Path>, env: &str, mode: &str, seed: u64) -> Result<PathBuf> {
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

/// A policy that is trained from scratch for this plant by the defaults of `train`, once; kept in the folder.
fn scratch(folder: &Path, env: &str, set: &[String], seed: u64) -> Result<ArtefactBytes> {
    let config = Config::resolve(&Sources { env: Some(env), seed: Some(seed), set, ..Sources::default() })?;
    let digest = crc::Crc::<u64>::new(&crc::CRC_64_XZ).checksum(config.to_toml().as_bytes());
    let path = folder.join(format!("scratch-{}-{digest:016x}.flw", env.replace([':', '/'], "-")));
    if path.is_file() {
        return ArtefactBytes::read(&path);
    }
    note(&format!(
        "training from scratch for this plant, {} control steps, into {}",
        config.total_timesteps,
        path.display()
    ));
    make_folder(folder)?;
    let mut trainer = Trainer::new(&config)?;
    trainer.run(&mut ())?;
    let policy = session::artefact(&trainer)?.ok_or_else(|| Error::failure("the training left no policy"))?;
    write_atomic(&path, policy.as_slice())?;
    Ok(policy)
}

/// Returns of a policy in the episodes of the last evaluation.
fn returns(policy: &ArtefactBytes, env: &mut Decision, options: &Options) -> Result<Summary> {
    let mut player = ArtefactPlayer::new(policy.artefact()?)?;
    Ok(play_plain(&mut player, env, options.episodes[1], options.eval_seed, &mut |_| {})?.plain())
}
