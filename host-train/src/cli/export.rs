//! `export`: a policy with another plan, without its critic, or into the folder the firmware is built from.
//!
//! The self-test vector is computed anew for the new plan. Written beside and renamed. The firmware prefers the exported
//! `pendulum.local.flw` to the committed `pendulum.flw`, which its tests stay with.

use super::{ExportArgs, Output};
use crate::policy::ArtefactBytes;
use crate::run::write_atomic;
use crate::{Error, Result};
use flowlet::flow::{Plan, Solver};
use serde_json::json;
use std::path::PathBuf;

/// The environment that the firmware has a program for, and the program's name.
const PROGRAM: &str = "pendulum";

/// Runs the command.
pub(super) fn run(args: &ExportArgs, output: Output) -> Result<()> {
    let source = if args.source.is_dir() { args.source.join("policy.flw") } else { args.source.clone() };
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
    let path = match (&args.out, args.firmware) {
        (Some(_), true) => {
            return Err(Error::usage("give --out FILE or --firmware, not both"));
        }
        (Some(path), false) => path.clone(),
        (None, true) if artefact.name() == PROGRAM => firmware_policies()?.join(format!("{PROGRAM}.local.flw")),
        (None, true) => {
            return Err(Error::usage(format!(
                "the firmware has no program for {:?}, only for {PROGRAM}: export with --out FILE for a program of your own",
                artefact.name()
            )));
        }
        (None, false) => {
            return Err(Error::usage("say where the policy goes: --out FILE, or --firmware for the firmware's folder"));
        }
    };
    write_atomic(&path, revised.as_slice())?;
    let critics = revised.artefact()?.critics().count();
    output.line(&format!(
        "{}: {}, {} {} steps, {critics} critics, {} bytes",
        path.display(),
        artefact.name(),
        plan.steps,
        plan.solver.name(),
        revised.as_slice().len()
    ));
    if args.firmware {
        output.line(&format!("next: (cd firmware && cargo run --release --bin {PROGRAM})"));
    }
    output.object(&json!({
        "policy": path,
        "env": artefact.name(),
        "bytes": revised.as_slice().len(),
        "steps": plan.steps,
        "solver": plan.solver.name(),
        "critics": critics,
    }));
    Ok(())
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
