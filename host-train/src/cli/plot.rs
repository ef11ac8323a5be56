//! `plot`: learning curves of runs, many algorithms in one picture.

use super::{Output, PlotArgs, note};
use crate::report::group::group;
use crate::report::load::load;
use crate::report::plot::{Style, png, svg};
use crate::run::write_atomic;
use crate::{Error, Result};
use serde_json::json;

/// Runs the command.
pub(super) fn run(args: &PlotArgs, output: Output) -> Result<()> {
    let kind = args.out.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
    let as_png = match kind.as_deref() {
        Some("svg") => false,
        Some("png") => true,
        _ => return Err(Error::usage(format!("--out {}: end it in .svg or .png", args.out.display()))),
    };
    let found = load(&args.runs)?;
    let (groups, left_out) = group(found.runs);
    for remark in found.remarks.iter().chain(&left_out) {
        note(remark);
    }
    let picture = svg(&groups, Style { metric: args.metric, axis: args.x, centre: args.centre })?;
    let bytes = if as_png { png(&picture)? } else { picture.into_bytes() };
    write_atomic(&args.out, &bytes)?;
    let runs: usize = groups.iter().map(|group| group.runs.len()).sum();
    output.line(&format!("{}: {} curves of {runs} runs", args.out.display(), groups.len()));
    let curves: Vec<_> = groups
        .iter()
        .map(|group| json!({ "env": group.env, "algo": group.algo, "label": group.label, "seeds": group.runs.len() }))
        .collect();
    output.object(&json!({ "out": args.out, "runs": runs, "curves": curves }));
    Ok(())
}
