//! What kernels and whole decisions take on every target: instructions, flash, RAM and stack, printed and written to
//! `docs/firmware.md`.
//!
//! Two programs are run in QEMU. `chain` passes one vector through a dense chain of ReLU layers, so its row is the kernels
//! and their epilogue alone. `act` decides a thousand times by a committed policy; its image is the smallest that acts,
//! and its row is a whole decision: normaliser, noise, network, squashing. QEMU counts instructions, not cycles: what a
//! figure here is in time, only a board can say.

use crate::boards::{self, Board};
use crate::cargo::{self, Firmware};
use crate::policy::Bytes;
use crate::qemu::{self, Outcome};
use crate::{document, elf, steps, tools};
use anyhow::{Context, Result, bail};
use flowlet::policy::Artefact;
use serde::Serialize;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `cargo xtask firmware-report`.
#[derive(clap::Args)]
pub struct Options {
    /// Only these targets, separated by commas; the document is then left as it is
    #[arg(long, value_delimiter = ',', value_name = "TARGETS")]
    targets: Vec<String>,
    /// Print one JSON object as the last line
    #[arg(long)]
    json: bool,
}

/// Dense chains, by the widths of their layers.
const CHAINS: [&str; 3] = ["24-64-64-6", "3-64-64-1", "64-128-128-12"];

/// Number formats, by their number in the artefact.
const FORMATS: [&str; 2] = ["f32", "int8"];

/// Policies of `firmware/policies` whose decisions are measured, with their format.
const POLICIES: [(&str, &str); 4] =
    [("pendulum", "f32"), ("pendulum-int8", "int8"), ("furuta", "f32"), ("furuta-int8", "int8")];

/// A thousand decisions are some thousand million instructions on a core without floating point.
const LIMIT: Duration = Duration::from_secs(900);

/// The most that a decision of the furuta policy may take on the Cortex-M4F: instructions, flash for code, RAM in all.
const BUDGET: (u64, u64, u64) = (15_000, 24 * 1024, 4 * 1024);

/// What is measured in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A pass through a dense chain.
    Chain,
    /// A whole decision of a policy.
    Decision,
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Name of the target.
    pub target: String,
    /// Widths of the layers.
    pub network: String,
    /// Format of the weights.
    pub format: String,
    /// What is measured.
    pub kind: Kind,
    /// The policy, of a decision.
    pub policy: Option<String>,
    /// Mean instructions of a pass or decision.
    pub instructions: u64,
    /// Its multiply-accumulates.
    pub macs: u64,
    /// Bytes to program: code and constants, with the weights of a decision's policy.
    pub flash: u64,
    /// Those of them that are not the policy; of a chain, whose weights are made on the device, all.
    pub code: u64,
    /// Bytes of static RAM.
    pub ram: u64,
    /// High-water mark of the stack from the start of the program, in bytes; a policy's working memory lies on it.
    pub stack: u64,
}

/// Measures every row and prints the table; writes the document when no target is left out.
pub fn run(root: &Path, options: &Options) -> Result<u8> {
    let boards = boards::select(root, &options.targets)?;
    tools::ensure_targets(root, &boards)?;
    tools::ensure_qemu(&boards)?;
    let rows = measure(root, &boards)?;
    print!("{}", plain(&rows));
    if options.targets.is_empty() {
        let path = root.join("docs/firmware.md");
        document::write(&path, "What the firmware takes", "cargo xtask firmware-report", &markdown(root, &rows)?)?;
        println!("wrote {}", path.display());
    }
    if options.json {
        println!("{}", serde_json::json!({ "rows": rows }));
    }
    Ok(0)
}

/// The furuta policy's decision on the Cortex-M4F must stay inside its budget; the remark tells the figures.
pub fn check(root: &Path, board: &Board) -> Result<String> {
    let row = decision(root, board, "furuta", "f32")?;
    let ram = row.ram + row.stack;
    for (what, found, most) in [
        ("instructions", row.instructions, BUDGET.0),
        ("bytes of code", row.code, BUDGET.1),
        ("bytes of RAM", ram, BUDGET.2),
    ] {
        if found > most {
            bail!("a decision of the furuta policy on {} takes {found} {what}, more than {most}", board.name);
        }
    }
    Ok(format!("{} instructions, {} bytes of code, {ram} bytes of RAM", row.instructions, row.code))
}

fn measure(root: &Path, boards: &[Board]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for of_board in steps::parallel(boards, |board| {
        eprintln!("... {}", board.name);
        measure_board(root, board)
    }) {
        rows.extend(of_board?);
    }
    Ok(rows)
}

fn measure_board(root: &Path, board: &Board) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let chain = cargo::build_firmware(root, board, "chain", &Firmware::default())?;
    for network in CHAINS {
        for (number, format) in FORMATS.iter().enumerate() {
            rows.push(pass(board, &chain, network, number, format)?);
        }
    }
    for (policy, format) in POLICIES {
        rows.push(decision(root, board, policy, format)?);
    }
    Ok(rows)
}

/// A pass through a dense chain.
fn pass(board: &Board, elf: &Path, network: &str, number: usize, format: &str) -> Result<Row> {
    let mut arguments: Vec<String> = network.split('-').enumerate().map(|(i, width)| format!("d{i}={width}")).collect();
    arguments.push(format!("format={number}"));
    let outcome = executed(board, elf, &arguments)?;
    let sizes = elf::sizes(elf)?;
    Ok(Row {
        target: board.name.clone(),
        network: network.into(),
        format: format.into(),
        kind: Kind::Chain,
        policy: None,
        instructions: number_of(&outcome, "instructions")?,
        macs: number_of(&outcome, "macs")?,
        flash: sizes.flash,
        code: sizes.flash,
        ram: sizes.ram,
        stack: number_of(&outcome, "stack")?,
    })
}

/// A whole decision of a committed policy.
fn decision(root: &Path, board: &Board, policy: &str, format: &str) -> Result<Row> {
    let path = policy_path(root, policy);
    let artefact = Bytes::read(&path)?;
    let features = if format == "int8" { "flowlet/int8" } else { "" };
    let elf = cargo::build_firmware(root, board, "act", &Firmware { policy: Some(path), small: Some(features) })?;
    let outcome = executed(board, &elf, &[])?;
    let sizes = elf::sizes(&elf)?;
    Ok(Row {
        target: board.name.clone(),
        network: network_of(&artefact)?,
        format: format.into(),
        kind: Kind::Decision,
        policy: Some(policy.into()),
        instructions: number_of(&outcome, "instructions")?,
        macs: number_of(&outcome, "macs")?,
        flash: sizes.flash,
        code: sizes.flash.saturating_sub(artefact.get().len() as u64),
        ram: sizes.ram,
        stack: number_of(&outcome, "stack")?,
    })
}

fn policy_path(root: &Path, policy: &str) -> PathBuf {
    root.join("firmware/policies").join(policy).with_extension("flw")
}

/// The widths of a policy's layers.
fn network_of(bytes: &Bytes) -> Result<String> {
    let artefact = Artefact::new(bytes.get())?;
    let shape = artefact.velocity().shape();
    let hidden = std::iter::repeat_n(shape.hidden, shape.layers);
    let widths: Vec<String> =
        std::iter::once(shape.obs).chain(hidden).chain([shape.act]).map(|n| n.to_string()).collect();
    Ok(widths.join("-"))
}

fn executed(board: &Board, elf: &Path, arguments: &[String]) -> Result<Outcome> {
    let outcome = qemu::execute(board, elf, arguments, LIMIT, |_| ())?;
    if outcome.code != 0 {
        bail!("{} on {} {}: {}", elf.display(), board.name, arguments.join(" "), outcome.lines.join("\n"));
    }
    Ok(outcome)
}

fn number_of(outcome: &Outcome, label: &str) -> Result<u64> {
    let value = outcome.value(label).with_context(|| format!("the firmware prints no line `{label}`"))?;
    let digits = value.strip_suffix(" bytes").unwrap_or(value);
    digits.parse().with_context(|| format!("`{label}: {value}` is no number"))
}

impl Row {
    /// Instructions of a multiply-accumulate.
    fn per_mac(&self) -> f64 {
        self.instructions as f64 / self.macs.max(1) as f64
    }

    fn cells(&self) -> [String; 9] {
        let what = self.policy.as_ref().map_or("chain".to_string(), |policy| format!("decision of {policy}"));
        [
            self.target.clone(),
            self.network.clone(),
            self.format.clone(),
            what,
            self.instructions.to_string(),
            format!("{:.2}", self.per_mac()),
            self.code.to_string(),
            (self.flash - self.code).to_string(),
            (self.ram + self.stack).to_string(),
        ]
    }
}

const HEADINGS: [&str; 9] =
    ["target", "network", "format", "what", "instructions", "per MAC", "code bytes", "policy bytes", "RAM bytes"];

/// The table for a terminal.
fn plain(rows: &[Row]) -> String {
    let lines: Vec<[String; 9]> =
        std::iter::once(HEADINGS.map(String::from)).chain(rows.iter().map(Row::cells)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEADINGS.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            // Words to the left, numbers to the right.
            let _ = if column < 4 { write!(text, "{cell:<width$}  ") } else { write!(text, "{cell:>width$}  ") };
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

/// The generated part of the document.
fn markdown(root: &Path, rows: &[Row]) -> Result<String> {
    let mut text = String::from(
        "QEMU counts instructions, not cycles, and nothing below was run on a board.\n\n## Kernels\n\n\
         One pass through a dense chain of ReLU layers, biases and activations included. Instructions a multiply-accumulate:\n\n",
    );
    let mut heading = vec!["target".to_string()];
    heading.extend(FORMATS.iter().flat_map(|format| CHAINS.map(|chain| format!("{chain} {format}"))));
    text += &document::row(&heading);
    text += &document::row(&vec!["---"; heading.len()]);
    for board in boards::all(root)? {
        let mut cells = vec![format!("{}: {}", board.name, board.description)];
        for (format, chain) in FORMATS.iter().flat_map(|format| CHAINS.map(|chain| (format, chain))) {
            let row = rows.iter().find(|row| {
                row.kind == Kind::Chain && row.target == board.name && row.network == chain && row.format == *format
            });
            cells.push(row.map_or("-".into(), |row| format!("{:.2}", row.per_mac())));
        }
        text += &document::row(&cells);
    }
    text += "\n## Decisions\n\nA whole decision of a committed policy: normaliser, noise, network, squashing, self-test passed. *Code* \
             is the image of the smallest program that acts, its log and its instruction counter included, without the \
             policy. *RAM* is static data and the high-water mark of the stack, on which the policy's working memory lies.\n\n";
    text += &document::row(&HEADINGS);
    text += &document::row(&["---"; 9]);
    for row in rows.iter().filter(|row| row.kind == Kind::Decision) {
        text += &document::row(&row.cells());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kind: Kind) -> Row {
        Row {
            target: "m4f".into(),
            network: "24-64-64-6".into(),
            format: "f32".into(),
            kind,
            policy: (kind == Kind::Decision).then(|| "furuta".into()),
            instructions: 12_032,
            macs: 6_016,
            flash: 30_000,
            code: 20_000,
            ram: 300,
            stack: 3_000,
        }
    }

    #[test]
    fn tables_hold_every_row_and_json_the_documented_keys() {
        let rows = [row(Kind::Chain), row(Kind::Decision)];
        let table = plain(&rows);
        assert_eq!(table.lines().count(), 3);
        assert!(table.contains("2.00") && table.contains("decision of furuta"), "{table}");
        let text = markdown(&crate::root(), &rows).unwrap();
        assert!(text.contains("| m4f: ") && text.contains("| 3300 |"), "{text}");
        let json = serde_json::to_value(&rows[0]).unwrap();
        for key in ["target", "network", "format", "instructions", "macs", "flash", "ram", "stack"] {
            assert!(json.get(key).is_some(), "{key}");
        }
    }
}
