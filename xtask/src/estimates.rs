//! What one estimate of a posterior mean takes on a board in QEMU: instructions and RAM, for several sizes.
//!
//! The firmware program `estimate` measures one size a run, so that the high-water mark of the stack is that size's.

use crate::boards::{self, Board};
use crate::cargo::{self, Firmware};
use crate::qemu::{self, Outcome};
use crate::tools;
use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::path::{Path, PathBuf};
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

/// The sizes that the test command measures, and the most that the stack may take there, in bytes.
const TESTED: [(u64, u64); 2] = [(1, 8), (6, 32)];
const MOST_STACK: u64 = 8000;

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
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
    let elf = build(root, &board)?;
    println!(
        "one estimate on {} ({}) in QEMU: two critics of 64-64 ReLU, three observations, mean of ten flow times",
        board.name, board.description
    );
    println!(
        "{:<10} {:>2} {:>3} {:>13} {:>12} {:>14} {:>16} {:>12}",
        "estimator", "d", "K", "instructions", "in critics", "per candidate", "estimator bytes", "stack bytes"
    );
    let mut rows = Vec::new();
    for method in 0..METHODS.len() {
        for (d, k) in DIMENSIONS.into_iter().flat_map(|d| CANDIDATES.map(|k| (d, k))) {
            let row = measure(&board, &elf, method, d, k)?;
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

/// The smallest and the largest size with every estimator, for the test command; the remark tells the instructions.
pub fn check(root: &Path, board: &Board) -> Result<String> {
    let elf = build(root, board)?;
    let mut remarks = Vec::new();
    for method in 0..METHODS.len() {
        for (d, k) in TESTED {
            let row = measure(board, &elf, method, d, k)?;
            row.fits(MOST_STACK)?;
            remarks.push(format!("{} d={d} K={k} {}", row.estimator, row.instructions));
        }
    }
    Ok(format!("instructions: {}", remarks.join(", ")))
}

fn build(root: &Path, board: &Board) -> Result<PathBuf> {
    cargo::build_firmware(root, board, "estimate", &Firmware::default())
}

/// Runs one size.
fn measure(board: &Board, elf: &Path, method: usize, d: u64, k: u64) -> Result<Row> {
    let arguments = [format!("d={d}"), format!("k={k}"), format!("method={method}")];
    let outcome = qemu::execute(board, elf, &arguments, LIMIT, |_| ())?;
    if outcome.code != 0 {
        bail!("estimate on {} with {}: {}", board.name, arguments.join(" "), outcome.lines.join("\n"));
    }
    Row::read(METHODS[method], d, k, &outcome)
}

impl Row {
    /// Reads what the firmware printed.
    fn read(estimator: &'static str, d: u64, k: u64, outcome: &Outcome) -> Result<Self> {
        let number = |label: &str| -> Result<u64> {
            let value = outcome.value(label).with_context(|| format!("estimate prints no line `{label}`"))?;
            let digits = value.strip_suffix(" bytes").unwrap_or(value);
            digits.parse().with_context(|| format!("`{label}: {value}` is no number"))
        };
        let evaluations = number("evaluations per estimate")?;
        if evaluations != k {
            bail!("{estimator} evaluated the target {evaluations} times with K = {k}");
        }
        Ok(Self {
            estimator,
            d,
            k,
            instructions: number("instructions per estimate")?,
            in_critics: number("of them in the critics")?,
            estimator_bytes: number("estimator")?,
            stack_bytes: number("stack")?,
        })
    }

    /// Fails where the stack took more than `most` bytes.
    fn fits(&self, most: u64) -> Result<()> {
        let Self { estimator, d, k, stack_bytes, .. } = self;
        if *stack_bytes > most {
            bail!("{estimator} with d = {d} and K = {k} took {stack_bytes} bytes of stack, more than {most}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str], k: u64) -> Result<Row> {
        Row::read("auto", 6, k, &Outcome { lines: lines.iter().map(ToString::to_string).collect(), code: 0 })
    }

    #[test]
    fn a_row_is_read_from_the_log() {
        let lines = [
            "evaluations per estimate: 32",
            "instructions per estimate: 2894603",
            "of them in the critics: 2376796",
            "estimator: 2388 bytes",
            "stack: 6256 bytes",
        ];
        let row = read(&lines, 32).unwrap();
        let (instructions, in_critics) = (2_894_603, 2_376_796);
        let (estimator_bytes, stack_bytes) = (2388, 6256);
        let wanted = Row { estimator: "auto", d: 6, k: 32, instructions, in_critics, estimator_bytes, stack_bytes };
        assert_eq!(row, wanted);
        assert!(row.fits(6256).is_ok());
        let refused = |result: Result<()>| format!("{:#}", result.unwrap_err());
        assert!(refused(row.fits(6255)).contains("6256 bytes of stack, more than 6255"));
        assert!(refused(read(&lines, 31).map(drop)).contains("32 times with K = 31"));
        assert!(refused(read(&lines[..4], 32).map(drop)).contains("no line `stack`"));
        let wrong = [&lines[..4], &["stack: many bytes"]].concat();
        assert!(refused(read(&wrong, 32).map(drop)).contains("is no number"));
    }
}
