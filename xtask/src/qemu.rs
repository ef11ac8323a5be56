//! Runs a firmware ELF in QEMU and decodes its `defmt` log.
//!
//! The firmware writes `defmt` frames by semihosting to QEMU's standard output and ends with a semihosting exit code.
//! `-icount` ties virtual time to instructions, so a run gives the same log every time, however busy the host is;
//! `sleep=off` lets idle virtual time pass at once. A run that takes longer than its limit of real time is stopped.

use crate::boards::{self, Board};
use crate::{elf, tools};
use anyhow::{Context, Result, bail};
use defmt_decoder::{DecodeError, Table};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{fs, thread};

/// `cargo xtask qemu`.
#[derive(clap::Args)]
pub struct Options {
    /// The board: m0, m3, m4f, m7, m33, m55, rv32imac, rv32imafc
    board: String,
    /// The firmware
    elf: PathBuf,
    /// Arguments of the firmware, NAME=NUMBER each
    arguments: Vec<String>,
    /// Stop the run after so many seconds of real time
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
}

/// What a run gave.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The messages in order, each with its level in front unless it is of level info.
    pub lines: Vec<String>,
    /// The firmware's exit code.
    pub code: i32,
}

impl Outcome {
    /// What follows `label: ` on the line that starts so.
    pub fn value(&self, label: &str) -> Option<&str> {
        self.lines.iter().find_map(|line| line.strip_prefix(label)?.strip_prefix(": "))
    }
}

/// Runs the firmware, prints its log and its sizes, forwards its exit code.
pub fn run(root: &Path, options: &Options) -> Result<u8> {
    let board = boards::find(root, &options.board)?;
    tools::ensure_qemu(std::slice::from_ref(&board))?;
    let limit = Duration::from_secs(options.timeout);
    let outcome = execute(&board, &options.elf, &options.arguments, limit, |line| println!("{line}"))?;
    if outcome.code == 0 {
        let sizes = elf::sizes(&options.elf)?;
        println!("flash: {} bytes, static RAM: {} bytes", sizes.flash, sizes.ram);
    }
    Ok(u8::try_from(outcome.code).unwrap_or(1))
}

/// Runs `elf` on `board` with `arguments`, for at most `limit` of real time, and hands on every message.
pub fn execute(
    board: &Board,
    elf: &Path,
    arguments: &[String],
    limit: Duration,
    mut message: impl FnMut(&str),
) -> Result<Outcome> {
    let bytes = fs::read(elf).with_context(|| format!("cannot read the firmware {}", elf.display()))?;
    let table = Table::parse(&bytes)
        .with_context(|| format!("{} is no firmware of this repository", elf.display()))?
        .with_context(|| format!("{} has no defmt section: it was not linked with defmt.x", elf.display()))?;
    match elf::board(&bytes) {
        Some(name) if name == board.name => {}
        Some(name) => bail!("{} was built for the board {name}, not for {}", elf.display(), board.name),
        None => bail!("{} does not say which board it was built for", elf.display()),
    }
    let mut qemu = Qemu::start(board, elf, arguments)?;
    let bytes = qemu.output()?;
    let deadline = Instant::now() + limit;
    let mut decoder = table.new_stream_decoder();
    let mut lines = Vec::new();
    loop {
        match bytes.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(chunk) => decoder.received(&chunk),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                bail!("{} did not end within {} s on {}", elf.display(), limit.as_secs(), board.name)
            }
        }
        loop {
            match decoder.decode() {
                Ok(frame) => {
                    let text = frame.display_message().to_string();
                    let line = match frame.level().map(|level| level.as_str()) {
                        Some("info") | None => text,
                        Some(level) => format!("{level}: {text}"),
                    };
                    message(&line);
                    lines.push(line);
                }
                Err(DecodeError::UnexpectedEof) => break,
                Err(DecodeError::Malformed) if table.encoding().can_recover() => {
                    let line = "error: a malformed log frame".to_string();
                    message(&line);
                    lines.push(line);
                }
                Err(DecodeError::Malformed) => bail!("the log of {} is malformed", elf.display()),
            }
        }
    }
    Ok(Outcome { lines, code: qemu.wait(deadline)? })
}

/// Runs an `elf` that writes plain text, one that is no firmware of `firmware/`; its text and exit code.
pub fn execute_plain(board: &Board, elf: &Path, limit: Duration) -> Result<(String, i32)> {
    let mut qemu = Qemu::start(board, elf, &[])?;
    let bytes = qemu.output()?;
    let deadline = Instant::now() + limit;
    let mut text = Vec::new();
    loop {
        match bytes.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(chunk) => text.extend(chunk),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                bail!("{} did not end within {} s on {}", elf.display(), limit.as_secs(), board.name)
            }
        }
    }
    Ok((String::from_utf8_lossy(&text).into_owned(), qemu.wait(deadline)?))
}

/// The QEMU process; stopped when it is dropped.
struct Qemu(Child);

impl Qemu {
    fn start(board: &Board, elf: &Path, arguments: &[String]) -> Result<Self> {
        let mut semihosting = String::from("enable=on,target=native,arg=firmware");
        for argument in arguments {
            semihosting.push_str(",arg=");
            // QEMU doubles a comma that is part of a value.
            semihosting.push_str(&argument.replace(',', ",,"));
        }
        let mut command = Command::new(&board.system);
        command.args(["-machine", &board.machine]);
        if board.system.contains("riscv") {
            command.args(["-bios", "none"]);
        }
        let child = command
            .args(["-icount", &format!("shift={},sleep=off", board.icount_shift)])
            .args(["-display", "none", "-monitor", "none", "-serial", "none"])
            .args(["-semihosting-config", &semihosting])
            .arg("-kernel")
            .arg(elf)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}: `cargo xtask setup` installs it", board.system))?;
        Ok(Self(child))
    }

    /// QEMU's standard output, read by a thread of its own so that a silent firmware can be timed out.
    fn output(&mut self) -> Result<mpsc::Receiver<Vec<u8>>> {
        let mut pipe = self.0.stdout.take().context("QEMU has no standard output")?;
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = pipe.read(&mut buffer) {
                if length == 0 || sender.send(buffer[..length].to_vec()).is_err() {
                    break;
                }
            }
        });
        Ok(receiver)
    }

    fn wait(&mut self, deadline: Instant) -> Result<i32> {
        loop {
            if let Some(status) = self.0.try_wait().context("cannot wait for QEMU")? {
                return status
                    .code()
                    .context("QEMU gave up: the firmware faulted inside a fault handler, as after a stack overflow");
            }
            if Instant::now() >= deadline {
                bail!("QEMU closed its output and did not end");
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is the usual case.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
