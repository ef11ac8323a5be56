//! `train`, and the bare command: trains, evaluates, exports, and says what to type next.
//!
//! The first Ctrl-C saves the run and says how to resume it, the second ends the program at once.

use super::{Output, interrupt_flag, note};
use crate::config::{Config, Sources};
use crate::evaluate::Evaluation;
use crate::fleet::{self, Audience, Member};
use crate::run::RunDir;
use crate::session::{Outcome, Reporter, Session, describe, greedy};
use crate::stats::{Interval, Scores};
use crate::train::Progress;
use crate::{Error, Result};
use clap::Args;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Options of `train`.
#[derive(Args, Clone, Debug, Default)]
pub struct TrainArgs {
    /// Environment; `envs` lists them [default: pendulum]
    #[arg(long, value_name = "NAME")]
    pub env: Option<String>,
    /// Algorithm [default: rfm]
    #[arg(long, value_name = "NAME")]
    pub algo: Option<String>,
    /// Seed of everything random; with --seeds the first of them [default: 1]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Number of seeds to train, each in a folder of its own beneath the run's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub seeds: Option<u32>,
    /// Seeds trained side by side; the results do not depend on it [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub jobs: Option<u32>,
    /// Control steps to train for [default: the environment's]
    #[arg(long, value_name = "N")]
    pub total_timesteps: Option<u64>,
    /// The run folder itself [default: a new one under runs/]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Set a key of config.toml, for example rfm.gamma=0.98 or env.mass=1.2; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Constants to start from: default or paper
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// Configuration to start from, for example another run's config.toml
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Policy to start from instead of fresh networks
    #[arg(long, value_name = "POLICY.flw")]
    pub init: Option<PathBuf>,
    /// Recorded transitions to start the replay buffer with, as `eval --record` writes them
    #[arg(long, value_name = "LOG.csv")]
    pub replay: Option<PathBuf>,
    /// Write TensorBoard event files into the run folder
    #[arg(long)]
    pub tensorboard: bool,
}

/// Runs the command.
pub(super) fn run(args: &TrainArgs, output: Output) -> Result<()> {
    let config = Config::resolve(&sources(args))?;
    let interrupted = interrupt_flag()?;
    if let Some(seeds) = args.seeds {
        if config.seed.checked_add(u64::from(seeds)).is_none_or(|end| i64::try_from(end).is_err()) {
            return Err(Error::usage(format!(
                "{seeds} seeds from {} on go beyond the largest seed, {}: give a smaller --seed",
                config.seed,
                i64::MAX
            )));
        }
        let parent = RunDir::parent(args.out.as_deref(), &config, u64::from(seeds))?;
        let mut audience = Crowd::new(config.total_timesteps * u64::from(seeds));
        note(&format!(
            "training {} on {}, {seeds} seeds from {} on, {} control steps each, into {}",
            config.algo(),
            config.env.name,
            config.seed,
            config.total_timesteps,
            parent.display()
        ));
        let jobs = jobs(args.jobs, seeds as usize);
        let members = fleet::train(&config, u64::from(seeds), jobs, &parent, &interrupted, &mut audience);
        audience.bar.finish_and_clear();
        return tell_all(&parent, members, output);
    }
    if args.jobs.is_some() {
        return Err(Error::usage("--jobs is for several seeds side by side: give --seeds too"));
    }
    let mut terminal = Terminal::new(&config);
    let outcome = Session::train(&config, args.out.as_deref(), interrupted, &mut terminal);
    terminal.finish();
    tell(&outcome?, output);
    Ok(())
}

/// What the options say of the configuration.
pub(super) fn sources(args: &TrainArgs) -> Sources<'_> {
    Sources {
        preset: args.preset.as_deref(),
        file: args.config.as_deref(),
        env: args.env.as_deref(),
        algo: args.algo.as_deref(),
        seed: args.seed,
        total_timesteps: args.total_timesteps,
        init: args.init.as_deref(),
        replay: args.replay.as_deref(),
        tensorboard: args.tensorboard,
        set: &args.set,
    }
}

/// Seeds side by side: as asked for, else one for each core.
pub(super) fn jobs(asked: Option<u32>, seeds: usize) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    asked.map_or_else(cores, |jobs| jobs as usize).min(seeds).max(1)
}

/// Prints what several seeds achieved; fails with the first seed that failed.
pub(super) fn tell_all(parent: &Path, members: Vec<Member>, output: Output) -> Result<()> {
    let (mut runs, mut single, mut greedy, mut cpu, mut failed) = (Vec::new(), Vec::new(), Vec::new(), 0.0, None);
    for member in members {
        match member.outcome {
            Ok(outcome) => {
                single.push(outcome.after.plain().mean);
                greedy.extend(outcome.after.best().map(|best| best.mean));
                cpu += outcome.progress.cpu_seconds;
                runs.push(report(&outcome));
            }
            Err(error) => failed = failed.or(Some((member.seed, error))),
        }
    }
    if let Some((seed, error)) = failed {
        let done = format!("{} {} done", runs.len(), if runs.len() == 1 { "seed is" } else { "seeds are" });
        let text = format!("seed {seed}: {error}; {done}, in {}", parent.display());
        return Err(match error {
            Error::Interrupted(_) => Error::Interrupted(format!(
                "stopped, {done}: type `cargo run --release -p host-train -- resume {}` to go on",
                parent.display()
            )),
            Error::Usage(_) => Error::Usage(text),
            Error::Failure(_) => Error::Failure(text),
        });
    }
    let (plain, best) = (Scores::of(&single), Scores::of(&greedy));
    output.line(&format!("{} seeds, {cpu:.1} CPU-seconds of training in all, in {}", runs.len(), parent.display()));
    output.line(&format!("  single sample  {}", spread(&plain)));
    if !greedy.is_empty() {
        output.line(&format!("  greedy         {}", spread(&best)));
    }
    output.line("next:");
    output.line(&format!("  cargo run --release -p host-train -- report {}", parent.display()));
    output.line(&format!("  cargo run --release -p host-train -- plot {}", parent.display()));
    let known = |i: Interval| i.is_known().then_some([i.low, i.high]);
    output.object(&json!({
        "seeds": runs.len(),
        "return_mean": plain.mean,
        "return_iqm": plain.iqm,
        "return_interval95": known(plain.mean_interval),
        "return_min": plain.min,
        "return_max": plain.max,
        "return_best_of": (!greedy.is_empty()).then_some(best.mean),
        "cpu_seconds": cpu,
        "run_dir": parent,
        "runs": runs,
    }));
    Ok(())
}

/// `mean -170.1, 95 % bootstrap interval [-176.0, -165.2], interquartile mean -169.9, from -181.0 to -160.2`.
pub(super) fn spread(scores: &Scores) -> String {
    let interval = scores.mean_interval;
    let interval = if interval.is_known() {
        format!(", 95 % bootstrap interval [{:.1}, {:.1}]", interval.low, interval.high)
    } else {
        String::new()
    };
    format!(
        "mean {:.1}{interval}, interquartile mean {:.1}, from {:.1} to {:.1}",
        scores.mean, scores.iqm, scores.min, scores.max
    )
}

/// Prints what a run achieved and what to type next.
pub(super) fn tell(outcome: &Outcome, output: Output) {
    let Outcome { config, run, progress, before, after, policy_bytes } = outcome;
    let policy = run.file("policy.flw");
    let file = policy.display();
    output.line(&format!(
        "{} on {}, seed {}: {} control steps, {} updates, {:.1} CPU-seconds",
        config.algo(),
        config.env.name,
        config.seed,
        progress.steps,
        progress.updates,
        progress.cpu_seconds
    ));
    output.line(&format!("  before   {}", describe(before, &greedy(config))));
    output.line(&format!("  after    {}", describe(after, &greedy(config))));
    if let Some(bytes) = policy_bytes {
        output.line(&format!("  policy   {file}, {bytes} bytes"));
    }
    output.line(&format!("  curve    {}", run.file("curve.svg").display()));
    if policy_bytes.is_some() {
        output.line("next:");
        output.line(&format!("  cargo run --release -p host-train -- verify {file}"));
        output.line(&format!("  cargo run --release -p host-train -- eval --policy {file} --episodes 100"));
        if config.env.name == "pendulum" {
            output.line(&format!("  cargo run --release -p host-train -- export {file} --firmware"));
            output.line("  (cd firmware && cargo run --release --bin pendulum)");
        }
    }
    output.object(&report(outcome));
}

/// The JSON object of a finished run.
fn report(outcome: &Outcome) -> Value {
    let Outcome { config, run, progress, before, after, policy_bytes } = outcome;
    let (plain, best) = (after.plain(), after.best());
    json!({
        "env": config.env.name,
        "algo": config.algo(),
        "seed": config.seed,
        "total_timesteps": progress.steps,
        "updates": progress.updates,
        "cpu_seconds": progress.cpu_seconds,
        "return_mean": plain.mean,
        "return_ci95": plain.ci95,
        "return_best_of": best.map(|b| b.mean),
        "return_before": before.plain().mean,
        "episodes": plain.n,
        "run_dir": run.path(),
        "policy": policy_bytes.map(|_| run.file("policy.flw")),
        "policy_bytes": policy_bytes,
    })
}

/// A progress bar in a terminal, lines elsewhere.
pub(super) struct Terminal {
    bar: ProgressBar,
    greedy: String,
    /// Control steps when the bar began, after the first block.
    from: Option<u64>,
}

impl Terminal {
    pub(super) fn new(config: &Config) -> Self {
        let style = "{bar:30} {pos}/{len} control steps, {rate}, {eta} left, {msg}";
        let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
        let style = style.with_key("rate", |state: &ProgressState, out: &mut dyn Write| {
            // A failed write to the bar's own buffer has nobody to be told.
            let _ = write!(out, "{:.0}/s", state.per_sec());
        });
        let bar = ProgressBar::new(config.total_timesteps).with_style(style).with_message("no episode yet");
        Self { bar, greedy: greedy(config), from: None }
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Reporter for Terminal {
    fn block(&mut self, progress: &Progress, last: Option<f64>) {
        if self.from.is_none() {
            // A run that goes on: what was done before is no speed.
            self.from = Some(progress.steps);
            self.bar.set_position(progress.steps);
            self.bar.reset_eta();
        }
        self.bar.set_position(progress.steps);
        if let Some(last) = last {
            self.bar.set_message(format!("return {last:.0}"));
        }
    }

    fn evaluated(&mut self, progress: &Progress, evaluation: &Evaluation) {
        if self.bar.is_hidden() {
            let seconds = self.bar.elapsed().as_secs_f64();
            let done = progress.steps - self.from.unwrap_or(0).min(progress.steps);
            let rate = done as f64 / seconds.max(1e-9);
            let left = (progress.total.saturating_sub(progress.steps)) as f64 / rate.max(1e-9);
            note(&format!(
                "{} of {} control steps, {rate:.0}/s, {left:.0} s left: {}",
                progress.steps,
                progress.total,
                describe(evaluation, &self.greedy)
            ));
        }
    }

    fn saved(&mut self, progress: &Progress, path: &Path) {
        if self.bar.is_hidden() {
            note(&format!("saved {} control steps in {}", progress.steps, path.display()));
        }
    }

    fn note(&mut self, text: &str) {
        self.bar.suspend(|| note(text));
    }
}

/// One bar over all seeds, and a line for each that is done.
pub(super) struct Crowd {
    pub(super) bar: ProgressBar,
}

impl Crowd {
    pub(super) fn new(total: u64) -> Self {
        let style = "{bar:30} {pos}/{len} control steps of all seeds, {eta} left";
        let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
        Self { bar: ProgressBar::new(total).with_style(style) }
    }
}

impl Audience for Crowd {
    fn steps(&mut self, steps: u64) {
        self.bar.set_position(steps);
    }

    fn note(&mut self, seed: u64, text: &str) {
        // What every seed says when it begins would only repeat itself.
        if text.starts_with("warning") {
            self.bar.suspend(|| note(&format!("seed {seed}: {text}")));
        }
    }

    fn done(&mut self, member: &Member) {
        let text = match &member.outcome {
            Ok(outcome) => {
                let what = describe(&outcome.after, &greedy(&outcome.config));
                format!("seed {}: {what}, {:.1} CPU-seconds", member.seed, outcome.progress.cpu_seconds)
            }
            Err(error) => format!("seed {}: {error}", member.seed),
        };
        self.bar.suspend(|| note(&text));
    }
}
