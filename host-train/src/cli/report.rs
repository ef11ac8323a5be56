//! `report`: final evaluations of runs as a Markdown table.

use super::{Output, ReportArgs, note};
use crate::report::group::{Group, group};
use crate::report::load::load;
use crate::report::table::{Extras, markdown, object};
use crate::run::write_atomic;
use crate::{Error, Result};
use std::path::PathBuf;

/// Runs the command.
pub(super) fn run(args: &ReportArgs, output: Output) -> Result<()> {
    if args.threshold.is_some_and(|threshold| !threshold.is_finite()) {
        return Err(Error::usage("--threshold must be a return: give a finite number"));
    }
    let groups = groups(&args.runs)?;
    let baseline = args.baseline.as_ref().map(groups_of).transpose()?.unwrap_or_default();
    let extras = Extras { baseline, threshold: args.threshold };
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
