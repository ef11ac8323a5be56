//! `train`, and the bare command: trains, evaluates, exports, and says what to type next.
//!
//! The first Ctrl-C saves the run and says how to resume it, the second ends the program at once.

use super::{Output, TrainArgs, interrupt_flag, note};
use crate::Result;
use crate::config::{Config, Sources};
use crate::evaluate::Evaluation;
use crate::session::{Outcome, Reporter, Session, describe};
use crate::train::Progress;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use serde_json::json;
use std::fmt::Write;
use std::path::Path;

/// Runs the command.
pub(super) fn run(args: &TrainArgs, output: Output) -> Result<()> {
    let config = Config::resolve(&Sources {
        preset: args.preset.as_deref(),
        file: args.config.as_deref(),
        env: args.env.as_deref(),
        algo: args.algo.as_deref(),
        seed: args.seed,
        total_timesteps: args.total_timesteps,
        init: args.init.as_deref(),
        replay: args.replay.as_deref(),
        set: &args.set,
    })?;
    let interrupted = interrupt_flag()?;
    let mut terminal = Terminal::new(&config);
    let outcome = Session::train(&config, args.out.as_deref(), interrupted, &mut terminal);
    terminal.finish();
    tell(&outcome?, output);
    Ok(())
}

/// Prints what a run achieved and what to type next.
pub(super) fn tell(outcome: &Outcome, output: Output) {
    let Outcome { config, run, progress, before, after, policy_bytes } = outcome;
    let (plain, best) = (after.plain(), after.best());
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
    output.line(&format!("  before   {}", describe(before, config.eval.best_of)));
    output.line(&format!("  after    {}", describe(after, config.eval.best_of)));
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
    output.object(&json!({
        "env": config.env.name,
        "algo": config.algo(),
        "seed": config.seed,
        "total_timesteps": progress.steps,
        "cpu_seconds": progress.cpu_seconds,
        "return_mean": plain.mean,
        "return_ci95": plain.ci95,
        "return_best_of": best.map(|b| b.mean),
        "return_before": before.plain().mean,
        "episodes": plain.n,
        "run_dir": run.path(),
        "policy": policy_bytes.map(|_| &policy),
        "policy_bytes": policy_bytes,
    }));
}

/// A progress bar in a terminal, lines elsewhere.
pub(super) struct Terminal {
    bar: ProgressBar,
    best_of: usize,
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
        Self { bar, best_of: config.eval.best_of, from: None }
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
                describe(evaluation, self.best_of)
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
