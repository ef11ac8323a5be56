//! `distill`: a policy of one step from a trained run, and what it loses against ten steps.
//!
//! Writes `distilled.flw` and `distillation.json` into the run's folder, beside their place and renamed; nothing else there
//! changes.

use super::{DistillArgs, Output, interrupt_flag, note};
use crate::distill::{Options, Outcome, Row, distill};
use crate::fleet;
use crate::run::{RunDir, write_atomic};
use crate::stats::Summary;
use crate::{Error, Result};
use serde_json::{Value, json};

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
