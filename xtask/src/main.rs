//! The command line of `cargo xtask`: parses the arguments, calls the library, turns its answer into an exit code.
//!
//! Exit codes: 0 success, 1 failure, 2 wrong use; `qemu` forwards the exit code of the firmware.

use clap::Parser;
use std::process::ExitCode;
use xtask::{Command, run};

/// The repository's tasks.
#[derive(Parser)]
#[command(name = "cargo xtask", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(if error.is::<xtask::WrongUse>() { 2 } else { 1 })
        }
    }
}
