//! `profile`: return, multiply-accumulates, instructions and memory for several numbers of steps and particles.
//!
//! A policy that lies in its run folder is played with the physics it was trained with. Needs no emulator: instructions
//! come from the model of `profile::cost`, whose error is printed with them.

use super::{Output, note, stage, trained_physics};
use crate::Result;
use crate::policy::ArtefactBytes;
use crate::profile::{Row, cost, table};
use clap::Args;
use flowlet::net::NumberFormat;
use serde_json::json;
use std::path::PathBuf;

/// Options of `profile`.
#[derive(Args, Clone, Debug)]
pub struct ProfileArgs {
    /// A policy file, or a run folder with one
    #[arg(value_name = "FILE|RUN")]
    pub source: PathBuf,
    /// Environment [default: the one it was trained on]
    #[arg(long, value_name = "NAME")]
    pub env: Option<String>,
    /// Episodes of each row
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub episodes: u32,
    /// Seed of start states and samples
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

/// Runs the command.
pub(super) fn run(args: &ProfileArgs, output: Output) -> Result<()> {
    let source = ArtefactBytes::place(&args.source)?;
    let bytes = ArtefactBytes::read(&source)?;
    let artefact = bytes.artefact()?;
    let name = args.env.as_deref().unwrap_or(artefact.name());
    let mut env = stage(&artefact, Some(name), &trained_physics(&source, name)?)?;
    let episodes = args.episodes as usize;
    let rows = table(&bytes, &mut env, episodes, args.seed, |done, all| {
        note(&format!("playing {name}: {} of {all}, {episodes} episodes", done + 1));
    })?;
    let own = artefact.plan().steps;
    output.line(&format!(
        "{}: {} solver, {episodes} episodes of {name} with seed {}, the same for every row; the policy's own plan has {own} steps",
        source.display(),
        artefact.plan().solver.name(),
        args.seed
    ));
    output.line(&format!(
        "{:>6} {:>9} {:>20} {:>20} {:>12} {:>16} {:>10}",
        "steps", "particles", "return", "against its own", "MACs", "M4F instructions", "RAM bytes"
    ));
    // The model is one of the kernels in single precision.
    let known = artefact.velocity().format() == NumberFormat::F32;
    for row in &rows {
        output.line(&line(row, own, known));
    }
    if artefact.critics().next().is_none() {
        output.line("no critics travel with this policy, so there is nothing to choose by: one particle");
    }
    let model = if known {
        format!("a model fitted in QEMU (cargo xtask profile-fit), within {} %", 100.0 * cost::ERROR)
    } else {
        "the model is of f32 networks (cargo xtask firmware-report counts those in int8)".to_string()
    };
    output.line(&format!(
        "return, difference: mean +- 95 % interval; instructions: {model}; RAM: scratch, beside it {} bytes of view and up to {} \
         of stack; weights stay in flash",
        cost::VIEW_BYTES,
        cost::STACK_BYTES
    ));
    output.object(&json!({
        "policy": source,
        "env": name,
        "episodes": episodes,
        "seed": args.seed,
        "solver": artefact.plan().solver.name(),
        "own_steps": own,
        "rows": rows.iter().map(|row| object(row, known)).collect::<Vec<_>>(),
        "instructions_error": known.then_some(cost::ERROR),
        "view_bytes": cost::VIEW_BYTES,
        "stack_bytes": cost::STACK_BYTES,
    }));
    Ok(())
}

fn line(row: &Row, own: usize, known: bool) -> String {
    let with_interval = |mean: f64, ci95: f64| {
        if ci95.is_finite() { format!("{mean:.1} +- {ci95:.1}") } else { format!("{mean:.1}") }
    };
    let reference = row.steps == own && row.particles == 1;
    let gain = if reference { "-".to_string() } else { with_interval(row.gain.mean, row.gain.ci95) };
    format!(
        "{:>6} {:>9} {:>20} {:>20} {:>12} {:>16} {:>10}",
        row.steps,
        row.particles,
        with_interval(row.returns.mean, row.returns.ci95),
        gain,
        row.decision.macs(),
        if known { format!("{:.0}", row.decision.instructions()) } else { "-".to_string() },
        row.decision.scratch_bytes()
    )
}

fn object(row: &Row, modelled: bool) -> serde_json::Value {
    let known = |x: f64| x.is_finite().then_some(x);
    json!({
        "steps": row.steps,
        "particles": row.particles,
        "return_mean": row.returns.mean,
        "return_ci95": known(row.returns.ci95),
        "gain_mean": row.gain.mean,
        "gain_ci95": known(row.gain.ci95),
        "macs": row.decision.macs(),
        "m4f_instructions": modelled.then(|| row.decision.instructions().round()),
        "ram_bytes": row.decision.scratch_bytes(),
    })
}
