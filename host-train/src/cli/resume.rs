//! `resume`: goes on with a run exactly where its newest checkpoint stands, or makes a finished one longer; with the folder
//! of several seeds, every one of them.

use super::train::{Crowd, Terminal, jobs, tell, tell_all};
use super::{Output, interrupt_flag, note};
use crate::fleet;
use crate::run::RunDir;
use crate::session::Session;
use crate::{Error, Result};
use clap::Args;
use std::path::PathBuf;

/// Options of `resume`.
#[derive(Args, Clone, Debug)]
pub struct ResumeArgs {
    /// The run folder, or the folder of several seeds
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// Control steps to train for in all [default: as in the run's config.toml]
    #[arg(long, value_name = "N")]
    pub total_timesteps: Option<u64>,
    /// Seeds trained side by side; the results do not depend on it [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub jobs: Option<u32>,
}

/// Runs the command.
pub(super) fn run(args: &ResumeArgs, output: Output) -> Result<()> {
    let seeds = fleet::seeds_in(&args.run);
    if !seeds.is_empty() {
        return several(args, seeds.len(), output);
    }
    let config = RunDir::open(&args.run)?.config(args.total_timesteps)?;
    if args.jobs.is_some() {
        return Err(Error::usage("--jobs is for several seeds side by side, and this is one run: leave it out"));
    }
    let interrupted = interrupt_flag()?;
    let mut terminal = Terminal::new(&config);
    let outcome = Session::resume(&args.run, args.total_timesteps, interrupted, &mut terminal);
    terminal.finish();
    tell(&outcome?, output);
    Ok(())
}

fn several(args: &ResumeArgs, seeds: usize, output: Output) -> Result<()> {
    let mut steps = 0;
    for (_, path) in fleet::seeds_in(&args.run) {
        steps += RunDir::open(&path)?.config(args.total_timesteps)?.total_timesteps;
    }
    // All before any starts: seeds of one folder keep one length.
    fleet::check(&args.run, args.total_timesteps)?;
    let interrupted = interrupt_flag()?;
    note(&format!("resuming {seeds} seeds in {}", args.run.display()));
    let mut crowd = Crowd::new(steps);
    let jobs = jobs(args.jobs, seeds);
    let members = fleet::resume(&args.run, args.total_timesteps, jobs, &interrupted, &mut crowd);
    crowd.bar.finish_and_clear();
    tell_all(&args.run, members, output)
}
