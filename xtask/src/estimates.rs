//! What one estimate of a posterior mean takes on a board in QEMU: instructions and RAM, for several sizes.
//!
//! The firmware program `estimate` measures one size a run, so that the high-water mark of the stack is that size's.

use crate::boards::{self, Board};
use crate::cargo::{self, Firmware};
use crate::{qemu, tools};
use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::path::Path;
use std::time::Duration;

/// `cargo xtask estimates`.
#[derive(clap::Args)]
pub struct Options {
    /// The board
    #[arg(long, default_value = "m4f", value_name = "BOARD")]
    target: String,
    /// Print one JSON object as the last line
    #[arg(long)]
    json: bool,
}

/// The sizes, dimensions by candidates.
const DIMENSIONS: [u64; 3] = [1, 2, 6];
const CANDIDATES: [u64; 3] = [8, 16, 32];

/// The estimators, by their number in the firmware.
const METHODS: [&str; 2] = ["auto", "published"];

/// One estimate is a few million instructions on a core without floating point; QEMU does a hundred million a second.
const LIMIT: Duration = Duration::from_secs(300);

/// One line of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Name of the estimator.
    pub estimator: &'static str,
    /// Dimension of the action.
    pub d: u64,
    /// Number of candidates.
    pub k: u64,
    /// Mean instructions of an estimate.
    pub instructions: u64,
    /// Those of them spent in the critics.
    pub in_critics: u64,
    /// Size of the estimator in bytes.
    pub estimator_bytes: u64,
    /// High-water mark of the program's stack in bytes, the estimator and the critics' scratch included.
    pub stack_bytes: u64,
}

/// Runs every size and prints the table.
pub fn run(root: &Path, options: &Options) -> Result<u8> {
    let board = boards::find(root, &options.target)?;
    tools::ensure_targets(root, std::slice::from_ref(&board))?;
    tools::ensure_qemu(std::slice::from_ref(&board))?;
    let elf = cargo::build_firmware(root, &board, "estimate", &Firmware::default())?;
    println!(
        "one estimate on {} ({}) in QEMU: two critics of 64-64 ReLU, three observations, mean of ten flow times",
        board.name, board.description
    );
    println!(
        "{:<10} {:>2} {:>3} {:>13} {:>12} {:>14} {:>16} {:>12}",
        "estimator", "d", "K", "instructions", "in critics", "per candidate", "estimator bytes", "stack bytes"
    );
    let mut rows = Vec::new();
    for (method, estimator) in METHODS.into_iter().enumerate() {
        for (d, k) in DIMENSIONS.into_iter().flat_map(|d| CANDIDATES.map(|k| (d, k))) {
            let row = measure(&board, &elf, method, estimator, d, k)?;
            println!(
                "{:<10} {:>2} {:>3} {:>13} {:>12} {:>14} {:>16} {:>12}",
                row.estimator,
                row.d,
                row.k,
                row.instructions,
                row.in_critics,
                row.instructions / row.k,
                row.estimator_bytes,
                row.stack_bytes
            );
            rows.push(row);
        }
    }
    if options.json {
        println!("{}", serde_json::json!({ "board": board.name, "rows": rows }));
    }
    Ok(0)
}

fn measure(board: &Board, elf: &Path, method: usize, estimator: &'static str, d: u64, k: u64) -> Result<Row> {
    let arguments = [format!("d={d}"), format!("k={k}"), format!("method={method}")];
    let outcome = qemu::execute(board, elf, &arguments, LIMIT, |_| ())?;
    if outcome.code != 0 {
        bail!("estimate on {} with {}: {}", board.name, arguments.join(" "), outcome.lines.join("\n"));
    }
    let number = |label: &str| -> Result<u64> {
        let value = outcome.value(label).with_context(|| format!("estimate prints no line `{label}`"))?;
        let digits = value.strip_suffix(" bytes").unwrap_or(value);
        digits.parse().with_context(|| format!("`{label}: {value}` is no number"))
    };
    let evaluations = number("evaluations per estimate")?;
    if evaluations != k {
        bail!("{estimator} evaluated the target {evaluations} times with K = {k}");
    }
    Ok(Row {
        estimator,
        d,
        k,
        instructions: number("instructions per estimate")?,
        in_critics: number("of them in the critics")?,
        estimator_bytes: number("estimator")?,
        stack_bytes: number("stack")?,
    })
}
