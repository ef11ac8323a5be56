//! `plot`: learning curves of runs, many algorithms in one picture.

use super::{Output, note};
use crate::report::curves::{Axis, Centre, Metric};
use crate::report::group::group;
use crate::report::load::load;
use crate::report::plot::{Style, png, svg};
use crate::run::write_atomic;
use crate::{Error, Result};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Options of `plot`.
#[derive(Args, Clone, Debug)]
pub struct PlotArgs {
    /// Run folders, or folders of runs
    #[arg(value_name = "RUN", required = true)]
    pub runs: Vec<PathBuf>,
    /// The picture, *.svg or *.png
    #[arg(long, value_name = "FILE", default_value = "curves.svg")]
    pub out: PathBuf,
    /// Which return
    #[arg(long, value_enum, default_value = "single")]
    pub metric: Metric,
    /// Along control steps or CPU-seconds
    #[arg(long, value_enum, default_value = "steps")]
    pub x: Axis,
    /// Mean or interquartile mean of the seeds
    #[arg(long, value_enum, default_value = "mean")]
    pub centre: Centre,
}

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
