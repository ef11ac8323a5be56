//! `report`: final evaluations of runs as a Markdown table.

use super::{Output, note};
use crate::report::group::{Group, group};
use crate::report::load::load;
use crate::report::table::{Extras, markdown, object};
use crate::run::write_atomic;
use crate::{Error, Result};
use clap::Args;
use std::path::PathBuf;

/// Options of `report`.
#[derive(Args, Clone, Debug)]
pub struct ReportArgs {
    /// Run folders, or folders of runs
    #[arg(value_name = "RUN", required = true)]
    pub runs: Vec<PathBuf>,
    /// Where to write the table [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Runs to compare with, seed by seed
    #[arg(long, value_name = "RUN")]
    pub baseline: Option<PathBuf>,
    /// Count the seeds whose single-sample return is below this
    #[arg(long, value_name = "RETURN", allow_negative_numbers = true)]
    pub threshold: Option<f64>,
    /// Tell the single-sample return after so many CPU-seconds of training too, from the curves
    #[arg(long, value_name = "S")]
    pub cpu_seconds: Option<f64>,
}

/// Runs the command.
pub(super) fn run(args: &ReportArgs, output: Output) -> Result<()> {
    if args.threshold.is_some_and(|threshold| !threshold.is_finite()) {
        return Err(Error::usage("--threshold must be a return: give a finite number"));
    }
    if args.cpu_seconds.is_some_and(|seconds| !(seconds.is_finite() && seconds > 0.0)) {
        return Err(Error::usage("--cpu-seconds must be a time of training: give a number above 0"));
    }
    let groups = groups(&args.runs)?;
    let baseline = args.baseline.as_ref().map(groups_of).transpose()?.unwrap_or_default();
    let extras = Extras { baseline, threshold: args.threshold, cpu_budget: args.cpu_seconds };
    let table = markdown(&groups, &extras);
    match &args.out {
        Some(out) => {
            write_atomic(out, table.as_bytes())?;
            output.line(&format!("{}: {} lines", out.display(), groups.len()));
        }
        None => output.line(table.trim_end()),
    }
    output.object(&object(&groups, &extras));
    Ok(())
}

fn groups_of(path: &PathBuf) -> Result<Vec<Group>> {
    groups(std::slice::from_ref(path))
}

fn groups(paths: &[PathBuf]) -> Result<Vec<Group>> {
    let found = load(paths)?;
    let (groups, left_out) = group(found.runs);
    for remark in found.remarks.iter().chain(&left_out) {
        note(remark);
    }
    Ok(groups)
}
