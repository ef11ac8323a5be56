//! `resume`: goes on with a run exactly where its newest checkpoint stands, or makes a finished one longer.

use super::train::{Terminal, tell};
use super::{Output, ResumeArgs, interrupt_flag};
use crate::Result;
use crate::run::RunDir;
use crate::session::Session;

/// Runs the command.
pub(super) fn run(args: &ResumeArgs, output: Output) -> Result<()> {
    let config = RunDir::open(&args.run)?.config(args.total_timesteps)?;
    let interrupted = interrupt_flag()?;
    let mut terminal = Terminal::new(&config);
    let outcome = Session::resume(&args.run, args.total_timesteps, interrupted, &mut terminal);
    terminal.finish();
    tell(&outcome?, output);
    Ok(())
}
