//! `distill`: a policy of one step from a trained run, and what it loses against ten steps.
//!
//! Writes `distilled.flw` and `distillation.json` into the run's folder, beside their place and renamed; nothing else there
//! changes.

use super::{Output, interrupt_flag, note, size};
use crate::distill::{Options, Outcome, Row, distill};
use crate::fleet;
use crate::run::{RunDir, write_atomic};
use crate::stats::Summary;
use crate::{Error, Result};
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Options of `distill`.
#[derive(Args, Clone, Debug)]
pub struct DistillArgs {
    /// The folder of a run of rfm
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// How to learn it
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub method: crate::distill::Method,
    /// Updates of each method
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub updates: u64,
    /// Episodes of the reported losses; half as many others choose between the methods
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    pub episodes: u32,
    /// Seed of everything random
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..1 << 24))]
    pub seed: u64,
    /// Width of the hidden layers [default: the trained policy's]
    #[arg(long, value_name = "H", value_parser = size(1024))]
    pub width: Option<usize>,
}

/// Runs the command.
pub(super) fn run(args: &DistillArgs, output: Output) -> Result<()> {
    if let Some((_, first)) = fleet::seeds_in(&args.run).first() {
        return Err(Error::usage(format!(
            "{} holds several seeds: give one of them, for example {}",
            args.run.display(),
            first.display()
        )));
    }
    let run = RunDir::open(&args.run)?;
    let _lock = run.lock()?;
    let options = Options {
        method: args.method,
        updates: args.updates,
        seed: args.seed,
        episodes: args.episodes as usize,
        width: args.width,
    };
    let stop = interrupt_flag()?;
    let outcome = distill(&run, &options, &stop, &mut |text| note(text))?;
    let (policy, table) = (run.file("distilled.flw"), run.file("distillation.json"));
    let object = object(&outcome, &options);
    write_atomic(&policy, outcome.policy.as_slice())?;
    write_atomic(&table, object.to_string().as_bytes())?;
    output.line(&format!(
        "{} on {}, seed {}: what fewer steps lose against ten, {} paired episodes, single samples",
        outcome.config.algo(),
        outcome.config.env.name,
        outcome.config.seed,
        outcome.episodes[0]
    ));
    output.line(&format!("{:<24} {:>20} {:>18} {:>8} {:>6}", "policy", "return", "loss", "astray", "CPU-s"));
    outcome.rows.iter().for_each(|row| output.line(&line(row)));
    let kept = &outcome.rows[outcome.kept];
    if kept.loss.mean.is_nan() {
        output.line("ten steps return no more than random actions, so there is nothing to lose: train the run longer");
    }
    output.line(&format!(
        "loss: 0 is ten Euler steps, 100 % is random actions, +- 95 % interval; astray: actions that the flow never takes \
         (its own: {:.1} %)",
        100.0 * outcome.stray_of_ten
    ));
    output.line(&format!(
        "kept: {}, by {} other episodes; {}, {} bytes, one Euler step",
        kept.name,
        outcome.episodes[1],
        policy.display(),
        outcome.policy.as_slice().len()
    ));
    output.object(&object);
    Ok(())
}

fn line(row: &Row) -> String {
    let percent = |x: f64| format!("{:.1} %", 100.0 * x);
    let returns = row.test.plain();
    format!(
        "{:<24} {:>20} {:>18} {:>8} {:>6}",
        row.name,
        format!("{:.1} +- {:.1}", returns.mean, returns.ci95),
        if row.loss.mean.is_nan() {
            "-".to_string()
        } else {
            format!("{} +- {:.1}", percent(row.loss.mean), 100.0 * row.loss.ci95)
        },
        row.stray.map_or_else(|| "-".to_string(), percent),
        if row.validation.is_some() { format!("{:.1}", row.cpu_seconds) } else { "-".to_string() }
    )
}

fn object(outcome: &Outcome, options: &Options) -> Value {
    let known = |x: f64| x.is_finite().then_some(x);
    let summary = |s: &Summary| json!({ "mean": known(s.mean), "ci95": known(s.ci95) });
    let rows = outcome.rows.iter().map(|row| {
        json!({
            "policy": row.name,
            "return": summary(&row.test.plain()),
            "loss": summary(&row.loss),
            "validation_loss": row.validation.as_ref().map(summary),
            "astray": row.stray,
            "ways": row.test.shares().map(|(single, _)| json!(single)),
            "cpu_seconds": row.validation.map(|_| row.cpu_seconds),
        })
    });
    json!({
        "env": outcome.config.env.name,
        "run_seed": outcome.config.seed,
        "method": options.method.name(),
        "updates": options.updates,
        "seed": options.seed,
        "width": options.width,
        "episodes": outcome.episodes[0],
        "validation_episodes": outcome.episodes[1],
        "rows": rows.collect::<Vec<_>>(),
        "kept": outcome.rows[outcome.kept].name,
        "loss": summary(&outcome.rows[outcome.kept].loss),
        "astray_of_ten_steps": outcome.stray_of_ten,
        "bytes": outcome.policy.as_slice().len(),
    })
}
