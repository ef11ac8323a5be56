//! One attempt at one run of a sweep: `host-train train`, or `resume` where the folder says that it is begun.
//!
//! The command runs in a process of its own, so that a run which dies takes nothing with it, and says what it has to say
//! into the run's log, after a line with the command itself. Where another process trains the run already (an orphan of an
//! engine that was killed, or another sweep) the attempt waits for it and then looks again.

use super::{Plan, State};
use crate::run::RunDir;
use crate::{Error, Result};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The run is finished.
    Finished,
    /// It failed and is worth another attempt.
    Failed(String),
    /// The command was refused; it will be again.
    Refused(String),
    /// It was stopped from here, in good order.
    Stopped,
}

/// How often a process is looked after.
const LOOK: Duration = Duration::from_millis(30);

/// The exit code of wrong use.
const WRONG_USE: i32 = 2;

/// Makes the attempt with `program`, the trainer; `stop` ends it in good order.
pub fn attempt(plan: &Plan, run: usize, program: &Path, stop: &AtomicBool) -> Ended {
    match prepare(plan, run, program, stop) {
        Ok(Some(ready)) => finish(plan, run, ready, stop),
        Ok(None) if plan.state(run) == State::Finished => Ended::Finished,
        Ok(None) => Ended::Stopped,
        Err(error) => Ended::Failed(error.to_string()),
    }
}

/// A command that is ready to start.
pub struct Ready {
    command: Command,
    /// Length of the log before.
    said: u64,
}

/// Waits until nobody else trains the run, begins its log, and makes the command; none where the run is finished, or
/// stopped before it began.
pub fn prepare(plan: &Plan, run: usize, program: &Path, stop: &AtomicBool) -> Result<Option<Ready>> {
    while RunDir::is_held(&plan.folder(run)) {
        if stop.load(Ordering::SeqCst) {
            return Ok(None);
        }
        sleep(10 * LOOK);
    }
    let Some(words) = plan.command(run).filter(|_| !stop.load(Ordering::SeqCst)) else { return Ok(None) };
    let path = plan.log(run);
    let failed = |e: std::io::Error| {
        Error::failure(format!("cannot write {} ({e}): check the folder's permissions and free space", path.display()))
    };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    let mut log = File::options().append(true).create(true).open(&path).map_err(failed)?;
    writeln!(log, "--- host-train {}", words.join(" ")).map_err(failed)?;
    let said = log.metadata().map_err(failed)?.len();
    let copy = log.try_clone().map_err(failed)?;
    let mut command = Command::new(program);
    command.args(&words).current_dir(&plan.root).stdin(Stdio::null()).stdout(log).stderr(copy);
    Ok(Some(Ready { command, said }))
}

impl Ready {
    /// Becomes the command: its signals are the process's own then. Returns only where that fails.
    #[cfg(unix)]
    pub fn become_it(mut self) -> Error {
        use std::os::unix::process::CommandExt;
        Error::failure(format!("cannot start host-train ({})", self.command.exec()))
    }
}

/// Runs the command to its end.
fn finish(plan: &Plan, run: usize, mut ready: Ready, stop: &AtomicBool) -> Ended {
    let mut child = match apart(&mut ready.command).spawn() {
        Ok(child) => child,
        Err(e) => return Ended::Failed(format!("cannot start host-train ({e})")),
    };
    let status = match wait(&mut child, stop) {
        Ok(status) => status,
        Err(e) => return Ended::Failed(format!("cannot wait for host-train ({e})")),
    };
    if status.success() && plan.state(run) == State::Finished {
        return Ended::Finished;
    }
    if stop.load(Ordering::SeqCst) {
        return Ended::Stopped;
    }
    let log = plan.log(run);
    let said = last_words(&log, ready.said).unwrap_or_else(|| "no reason was given".into());
    let sentence = if status.success() {
        "host-train left no evaluation.json there".to_string()
    } else {
        format!("{said} ({status}; its output is in {})", log.display())
    };
    if status.code() == Some(WRONG_USE) { Ended::Refused(sentence) } else { Ended::Failed(sentence) }
}

/// A process group of its own: Ctrl-C in a terminal reaches this process alone, which passes it on once. A second one
/// would end a training at once.
pub(super) fn apart(command: &mut Command) -> &mut Command {
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        command.process_group(0);
    }
    command
}

/// Waits for a process; passes a stop on to it.
pub(super) fn wait(child: &mut Child, stop: &AtomicBool) -> std::io::Result<ExitStatus> {
    let mut passed_on = false;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if stop.load(Ordering::SeqCst) && !passed_on {
            interrupt(child)?;
            passed_on = true;
        }
        sleep(LOOK);
    }
}

/// Asks a process to stop in good order. Not by SIGINT: a shell that puts this into the
/// background ignores it for all, and Ray blocks it in its workers.
fn interrupt(child: &mut Child) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use nix::sys::signal::{Signal, kill};
        let id = nix::unistd::Pid::from_raw(i32::try_from(child.id()).map_err(std::io::Error::other)?);
        kill(id, Signal::SIGTERM).map_err(std::io::Error::from)
    }
    #[cfg(not(unix))]
    child.kill()
}

/// The last line of a log, after the first `from` bytes of it.
pub fn last_words(log: &Path, from: u64) -> Option<String> {
    let mut file = File::open(log).ok()?;
    // Long logs are read from near their end.
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(from.max(length.saturating_sub(1 << 16)))).ok()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let last = text.lines().rev().map(str::trim).find(|line| !line.is_empty() && !line.starts_with("---"))?;
    Some(last.strip_prefix("error: ").unwrap_or(last).to_string())
}
