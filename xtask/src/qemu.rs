//! Runs a firmware ELF in QEMU and decodes its `defmt` log.
//!
//! The firmware writes `defmt` frames by semihosting to QEMU's standard output and ends with a semihosting exit code.
//! `-icount` ties virtual time to instructions, so a run gives the same log every time, however busy the host is;
//! `sleep=off` lets idle virtual time pass at once. A run that takes longer than its limit of real time is stopped.

use crate::boards::{self, Board};
use crate::{elf, tools};
use anyhow::{Context, Result, bail};
use defmt_decoder::{DecodeError, StreamDecoder, Table};
use std::io::{BufRead, BufReader, Read};
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
    /// Put the serial port on this TCP port of this machine, and wait until somebody connects
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    uart: Option<u16>,
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
    let setup = Setup { arguments: &options.arguments, uart: options.uart };
    let outcome = execute_with(&board, &options.elf, &setup, limit, |line| println!("{line}"))?;
    if outcome.code == 0 {
        let sizes = elf::sizes(&options.elf)?;
        println!("flash: {} bytes, static RAM: {} bytes", sizes.flash, sizes.ram);
    }
    Ok(u8::try_from(outcome.code).unwrap_or(1))
}

/// What a run has beside its board and its firmware.
#[derive(Debug, Clone, Copy, Default)]
pub struct Setup<'a> {
    /// Arguments of the firmware.
    pub arguments: &'a [String],
    /// TCP port of this machine on which the serial port listens; zero for a free one.
    pub uart: Option<u16>,
}

/// Runs `elf` on `board` with `arguments`, for at most `limit` of real time, and hands on every message.
pub fn execute(
    board: &Board,
    elf: &Path,
    arguments: &[String],
    limit: Duration,
    message: impl FnMut(&str),
) -> Result<Outcome> {
    execute_with(board, elf, &Setup { arguments, uart: None }, limit, message)
}

/// The same with all of [`Setup`].
pub fn execute_with(
    board: &Board,
    elf: &Path,
    setup: &Setup<'_>,
    limit: Duration,
    mut message: impl FnMut(&str),
) -> Result<Outcome> {
    let table = symbols(board, elf)?;
    let mut qemu = Qemu::start(board, elf, setup)?;
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
        for line in messages(&table, decoder.as_mut())? {
            message(&line);
            lines.push(line);
        }
    }
    Ok(Outcome { lines, code: qemu.wait(deadline)? })
}

/// What the log of `elf` is decoded with; refuses an ELF of another board.
fn symbols(board: &Board, elf: &Path) -> Result<Table> {
    let bytes = fs::read(elf).with_context(|| format!("cannot read the firmware {}", elf.display()))?;
    let table = Table::parse(&bytes)
        .with_context(|| format!("{} is no firmware of this repository", elf.display()))?
        .with_context(|| format!("{} has no defmt section: it was not linked with defmt.x", elf.display()))?;
    match elf::board(&bytes) {
        Some(name) if name == board.name => {}
        Some(name) => bail!("{} was built for the board {name}, not for {}", elf.display(), board.name),
        None => bail!("{} does not say which board it was built for", elf.display()),
    }
    Ok(table)
}

/// The messages of the frames that are whole by now, each with its level in front unless it is of level info.
fn messages(table: &Table, decoder: &mut dyn StreamDecoder) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        match decoder.decode() {
            Ok(frame) => {
                let text = frame.display_message().to_string();
                lines.push(match frame.level().map(|level| level.as_str()) {
                    Some("info") | None => text,
                    Some(level) => format!("{level}: {text}"),
                });
            }
            Err(DecodeError::UnexpectedEof) => return Ok(lines),
            Err(DecodeError::Malformed) if table.encoding().can_recover() => {
                lines.push("error: a malformed log frame".to_string());
            }
            Err(DecodeError::Malformed) => bail!("the firmware's log is malformed"),
        }
    }
}

/// A firmware that runs until this is dropped, with its serial port on a TCP port of this machine.
pub struct Served {
    _qemu: Qemu,
    /// The TCP port; the firmware starts when somebody connects.
    pub port: u16,
    table: Table,
    output: mpsc::Receiver<Vec<u8>>,
}

/// Starts a firmware that serves its serial port.
pub fn serve(board: &Board, elf: &Path) -> Result<Served> {
    let table = symbols(board, elf)?;
    let mut qemu = Qemu::start(board, elf, &Setup { arguments: &[], uart: Some(0) })?;
    let output = qemu.output()?;
    let pipe = qemu.0.stderr.take().context("QEMU has no standard error")?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            // It says which port it took: `.. waiting for connection on: disconnected:tcp:127.0.0.1:PORT,server=on`.
            let port = line.split_once("waiting for connection on").and_then(|(_, rest)| {
                let number = rest.split_once("127.0.0.1:")?.1;
                number.split(',').next()?.parse::<u16>().ok()
            });
            match port {
                Some(port) => drop(sender.send(port)),
                None => eprintln!("{line}"),
            }
        }
    });
    let port = receiver.recv_timeout(Duration::from_secs(30));
    let port = port.with_context(|| format!("QEMU does not open the serial port of {}", board.name))?;
    Ok(Served { _qemu: qemu, port, table, output })
}

impl Served {
    /// The firmware's messages so far.
    pub fn lines(self) -> Result<Vec<String>> {
        let mut decoder = self.table.new_stream_decoder();
        self.output.try_iter().for_each(|chunk| decoder.received(&chunk));
        messages(&self.table, decoder.as_mut())
    }
}

/// Runs an `elf` that writes plain text, one that is no firmware of `firmware/`; its text and exit code.
pub fn execute_plain(board: &Board, elf: &Path, limit: Duration) -> Result<(String, i32)> {
    let mut qemu = Qemu::start(board, elf, &Setup::default())?;
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
    fn start(board: &Board, elf: &Path, setup: &Setup<'_>) -> Result<Self> {
        let mut semihosting = String::from("enable=on,target=native,arg=firmware");
        for argument in setup.arguments {
            semihosting.push_str(",arg=");
            // QEMU doubles a comma that is part of a value.
            semihosting.push_str(&argument.replace(',', ",,"));
        }
        let mut command = Command::new(&board.system);
        command.args(["-machine", &board.machine]);
        if board.system.contains("riscv") {
            command.args(["-bios", "none"]);
        }
        // An answer goes out byte by byte: without `nodelay` every one waits 40 ms for TCP's acknowledgement.
        let serial =
            setup.uart.map_or("none".to_string(), |port| format!("tcp:127.0.0.1:{port},server=on,wait=on,nodelay=on"));
        let child = command
            .args(["-icount", &format!("shift={},sleep=off", board.icount_shift)])
            .args(["-display", "none", "-monitor", "none", "-serial", &serial])
            .args(["-semihosting-config", &semihosting])
            .arg("-kernel")
            .arg(elf)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(if setup.uart == Some(0) { Stdio::piped() } else { Stdio::inherit() })
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
