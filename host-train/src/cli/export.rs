//! `export`: a policy with another plan, without its critic, in another format, or into the folder the firmware is built
//! from; also its network in int8, with the return that this costs.
//!
//! The self-test vector is computed anew for the new plan. Written beside and renamed. The firmware prefers the exported
//! `pendulum.local.flw` to the committed `pendulum.flw`, which its tests stay with. `docs/export.md` describes the formats.

use super::{Output, interrupt_flag, note, stage, trained_physics};
use crate::export::{Format, onnx, rust_source, tensors};
use crate::policy::ArtefactBytes;
use crate::quantise::{self, Options, Outcome};
use crate::run::write_atomic;
use crate::{Error, Result};
use clap::Args;
use flowlet::flow::{Plan, Solver};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Options of `export`.
#[derive(Args, Clone, Debug)]
pub struct ExportArgs {
    /// A policy file, or a run folder with one
    #[arg(value_name = "FILE|RUN")]
    pub source: PathBuf,
    /// Put the policy where the firmware is built from, without its critic
    #[arg(long)]
    pub firmware: bool,
    /// Where to write the policy [default: beside it, for formats other than flw]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// File format [default: by the ending of --out, else flw]
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<crate::export::Format>,
    /// Which graph an ONNX file holds [default: policy]
    #[arg(long, value_name = "PART")]
    pub onnx_part: Option<crate::export::onnx::Part>,
    /// Solver steps of a decision [default: as it is]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub steps: Option<u16>,
    /// Solver: euler, midpoint, heun or rk4 [default: as it is]
    #[arg(long, value_name = "NAME")]
    pub solver: Option<String>,
    /// Leave the critic out
    #[arg(long)]
    pub without_critic: bool,
    /// Put the velocity network into another number format, and tell what return that costs [default: as it is]
    #[arg(long, value_name = "FORMAT")]
    pub quantize: Option<Quantisation>,
    /// With --quantize: environment to calibrate and compare in [default: the one it was trained on]
    #[arg(long, value_name = "NAME", requires = "quantize")]
    pub env: Option<String>,
    /// With --quantize: paired episodes of the comparison [default: 100]
    #[arg(long, value_name = "N", requires = "quantize", value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    pub episodes: Option<u32>,
    /// With --quantize: seed of start states and noise [default: 1]
    #[arg(long, value_name = "N", requires = "quantize", value_parser = clap::value_parser!(u64).range(0..1 << 24))]
    pub seed: Option<u64>,
}

/// A number format that `export` can make.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantisation {
    /// 8-bit weights, 16-bit activations, 32-bit sums
    Int8,
}

/// The environment that the firmware has a program for, and the program's name.
const PROGRAM: &str = "pendulum";

/// Runs the command.
pub(super) fn run(args: &ExportArgs, output: Output) -> Result<()> {
    let format = format(args)?;
    let source = ArtefactBytes::place(&args.source)?;
    let bytes = ArtefactBytes::read(&source)?;
    let artefact = bytes.artefact()?;
    let mut plan: Plan = *artefact.plan();
    if let Some(steps) = args.steps {
        plan.steps = usize::from(steps);
    }
    if let Some(name) = &args.solver {
        let known = Solver::ALL.into_iter().find(|s| s.name() == name);
        plan.solver = known.ok_or_else(|| {
            let names: Vec<&str> = Solver::ALL.iter().map(|s| s.name()).collect();
            Error::usage(format!("unknown solver {name:?}: use one of {}", names.join(", ")))
        })?;
    }
    // The firmware samples; the critic would only take its flash.
    let revised = bytes.revised(plan, !(args.without_critic || args.firmware))?;
    let path = place(args, &source, format, artefact.name())?;
    let outcome = args.quantize.map(|to| quantised(args, to, &source, &revised)).transpose()?;
    let revised = outcome.as_ref().map_or(&revised, |outcome| &outcome.policy);
    let view = revised.artefact()?;
    let part = (format == Format::Onnx).then(|| args.onnx_part.unwrap_or(onnx::Part::Policy));
    let file = match format {
        Format::Flw => revised.as_slice().to_vec(),
        Format::Rust => rust_source::encode(&view).into_bytes(),
        Format::Safetensors => tensors::encode(&view)?,
        Format::Onnx => onnx::encode(&view, part.unwrap_or(onnx::Part::Policy))?,
    };
    write_atomic(&path, &file)?;
    let critics = view.critics().count();
    let held = match part {
        Some(onnx::Part::Policy) => "the unrolled policy",
        Some(onnx::Part::Velocity) => "the velocity network",
        None => &format!("{critics} critics"),
    };
    output.line(&format!(
        "{}: {}, {}, {} {} steps, {held}, {} bytes",
        path.display(),
        artefact.name(),
        view.velocity().format().name(),
        plan.steps,
        plan.solver.name(),
        file.len()
    ));
    if let Some(outcome) = &outcome {
        tell(outcome, output);
    }
    if args.firmware {
        output.line(&format!("next: (cd firmware && cargo run --release --bin {PROGRAM})"));
    }
    output.object(&json!({
        "policy": path,
        "format": format.ending(),
        "onnx_part": part.map(onnx::Part::name),
        "env": artefact.name(),
        "bytes": file.len(),
        "steps": plan.steps,
        "solver": plan.solver.name(),
        "critics": if part.is_some() { 0 } else { critics },
        "number_format": view.velocity().format().name(),
        "quantized": outcome.as_ref().map(object),
    }));
    Ok(())
}

/// The policy with its network in int8, compared with itself in f32.
fn quantised(args: &ExportArgs, to: Quantisation, source: &Path, policy: &ArtefactBytes) -> Result<Outcome> {
    let Quantisation::Int8 = to;
    let artefact = policy.artefact()?;
    let name = args.env.as_deref().unwrap_or(artefact.name());
    let mut env = stage(&artefact, Some(name), &trained_physics(source, name)?)?;
    let options = Options { episodes: args.episodes.map_or(100, |n| n as usize), seed: args.seed.unwrap_or(1) };
    let stop = interrupt_flag()?;
    quantise::quantise(policy, &mut env, options, &stop, &mut |text| note(text))
}

fn tell(outcome: &Outcome, output: Output) {
    let (single, int8) = (outcome.single.plain(), outcome.int8.plain());
    let share = outcome.share.map_or_else(
        || "f32 returns no more than random actions, so this says little".to_string(),
        |share| {
            format!("{:.2} +- {:.2} % of what f32 returns above random actions", 100.0 * share.mean, 100.0 * share.ci95)
        },
    );
    output.line(&format!(
        "return of f32 {:.1}, of int8 {:.1}; lost {:.2} +- {:.2} ({share}); {} paired episodes, single samples, calibrated at {} \
         states of other episodes",
        single.mean, int8.mean, outcome.lost.mean, outcome.lost.ci95, single.n, outcome.states
    ));
}

fn object(outcome: &Outcome) -> Value {
    json!({
        "episodes": outcome.lost.n,
        "states": outcome.states,
        "return_f32": outcome.single.plain().mean,
        "return_int8": outcome.int8.plain().mean,
        "lost": outcome.lost.mean,
        "lost_ci95": outcome.lost.ci95,
        "lost_share": outcome.share.map(|share| share.mean),
        "lost_share_ci95": outcome.share.map(|share| share.ci95),
    })
}

/// The format that was asked for, by name or by the ending of `--out`.
fn format(args: &ExportArgs) -> Result<Format> {
    let by_ending = args.out.as_deref().and_then(Format::of);
    let format = match (args.format, by_ending) {
        (Some(named), Some(ending)) if named != ending => {
            return Err(Error::usage(format!(
                "--out ends in .{}, and --format asks for another format: let the file end in .{}, or leave --format out",
                ending.ending(),
                named.ending()
            )));
        }
        (Some(format), _) | (None, Some(format)) => format,
        (None, None) => Format::Flw,
    };
    if args.firmware && format != Format::Flw {
        return Err(Error::usage(
            "--firmware takes the .flw format only: leave --format out, or give --out FILE instead",
        ));
    }
    if args.quantize.is_some() && !matches!(format, Format::Flw | Format::Rust) {
        return Err(Error::usage(format!(
            "a .{} file holds floats: --quantize goes with the formats flw and rust",
            format.ending()
        )));
    }
    if args.onnx_part.is_some() && format != Format::Onnx {
        return Err(Error::usage("--onnx-part belongs to ONNX: add --format onnx or let --out end in .onnx"));
    }
    Ok(format)
}

/// Where the file goes: `--out`, the firmware's folder, or beside the policy under another ending.
fn place(args: &ExportArgs, source: &Path, format: Format, env: &str) -> Result<PathBuf> {
    match (&args.out, args.firmware) {
        (Some(_), true) => Err(Error::usage("give --out FILE or --firmware, not both")),
        (Some(path), false) => Ok(path.clone()),
        (None, true) if env == PROGRAM => Ok(firmware_policies()?.join(format!("{PROGRAM}.local.flw"))),
        (None, true) => Err(Error::usage(format!(
            "the firmware has no program for {env:?}, only for {PROGRAM}: export with --out FILE for a program of your own"
        ))),
        (None, false) if format == Format::Flw && args.quantize.is_some() => Ok(source.with_extension("int8.flw")),
        (None, false) if format == Format::Flw => Err(Error::usage(
            "say where the policy goes: --out FILE, --firmware for the firmware's folder, or another --format beside it",
        )),
        (None, false) if args.onnx_part == Some(onnx::Part::Velocity) => Ok(source.with_extension("velocity.onnx")),
        (None, false) => Ok(source.with_extension(format.ending())),
    }
}

/// `firmware/policies` of the repository that the working directory lies in.
fn firmware_policies() -> Result<PathBuf> {
    let here =
        std::env::current_dir().map_err(|e| Error::failure(format!("cannot tell the working directory: {e}")))?;
    let found = here.ancestors().map(|dir| dir.join("firmware/policies")).find(|dir| dir.is_dir());
    found.ok_or_else(|| {
        Error::usage("no firmware/policies folder here or above: run inside the repository, or give --out FILE")
    })
}
