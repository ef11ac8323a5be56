//! What kernels and whole decisions take on every target: instructions, flash, RAM and stack, printed and written to
//! `docs/firmware.md`.
//!
//! Two programs are run in QEMU. `chain` passes one vector through a dense chain of ReLU layers, so its row is the kernels
//! and their epilogue alone. `act` decides a thousand times by a committed policy; its image only acts,
//! and its row is a whole decision: normaliser, noise, network, squashing. QEMU counts instructions, not cycles: what a
//! figure here is in time, only a board can say. What is said of cycles and of time is called an estimate, with its source.

use crate::boards::{self, Board};
use crate::cargo::{self, Firmware};
use crate::policy::Bytes;
use crate::qemu::{self, Outcome};
use crate::{cycles, digests, document, elf, steps, tools};
use anyhow::{Context, Result, bail};
use flowlet::policy::Artefact;
use serde::Serialize;
use std::fmt::Write as _;
use std::path::Path;
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

/// The target whose decisions are also estimated in time, and for whose f32 kernels [`cycles`] has a model.
const ESTIMATED: &str = "m4f";

/// Clock of that estimate and its assumption: the cycles of an instruction.
const CLOCK_HZ: f64 = 168e6;
const CYCLES: f64 = 2.0;

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
    /// Bytes to program: [`code`](Row::code) and the policy, or of a chain its weights; the image of `chain` has the weights of
    /// all chains, and those of the others are taken off.
    pub flash: u64,
    /// Code and constants of the program without any weights; `chain` has both formats' kernels.
    pub code: u64,
    /// Bytes of static RAM.
    pub ram: u64,
    /// High-water mark of the stack in bytes: of a pass with its buffers alone, of a decision from the start of the program,
    /// with the policy's working memory.
    pub stack: u64,
    /// Cycles of a pass, estimated from Arm's instruction timings, where there is a model of the kernels.
    pub estimated_cycles: Option<u64>,
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
    let instructions = number_of(&outcome, "instructions")?;
    let code = sizes.flash.saturating_sub(number_of(&outcome, "weights of all networks")?);
    let widths = network.split('-').map(str::parse).collect::<Result<Vec<u64>, _>>()?;
    let estimated = board.name == ESTIMATED && format == "f32";
    Ok(Row {
        target: board.name.clone(),
        network: network.into(),
        format: format.into(),
        kind: Kind::Chain,
        policy: None,
        instructions,
        macs: number_of(&outcome, "macs")?,
        flash: code + number_of(&outcome, "weights")?,
        code,
        ram: sizes.ram,
        stack: number_of(&outcome, "stack")?,
        estimated_cycles: estimated.then(|| cycles::estimate(&widths, instructions).1),
    })
}

/// A whole decision of a committed policy.
fn decision(root: &Path, board: &Board, policy: &str, format: &str) -> Result<Row> {
    let path = digests::committed(root, policy);
    let artefact = Bytes::read(&path)?;
    // The compiler's int8 code for cores without assembly takes half as many instructions again when it must be small.
    let (features, small) = if format == "int8" { ("flowlet/int8", false) } else { ("", true) };
    let options = Firmware { policy: Some(path), features: Some(features), small };
    let elf = cargo::build_firmware(root, board, "act", &options)?;
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
        estimated_cycles: None,
    })
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
    text += "\nf32 chains have their sizes known at compile time. An int8 chain is a velocity network whose first layer is split into \
             observations and latents, of sizes known at run time; rounding its inputs to integers and making floats of its \
             outputs are in the count.\n";
    text += &estimate_of_cycles(rows);
    text += "\nWhat the passes take beside instructions:\n\n";
    text += &table(rows.iter().filter(|row| row.kind == Kind::Chain));
    text += "\n*Code* is the image of the program that measures, which has the kernels of both formats, without any weights. *RAM* is \
             static data, and the stack of a pass with its buffers.\n";
    text += "\n## Decisions\n\nA whole decision of a committed policy: normaliser, noise, network, squashing, self-test passed. *Code* \
             is the image of a program that only acts, its log and its instruction counter included, without the policy: \
             built with no other features, in f32 by the profile `small`, in int8 by `release`. *RAM* is static data and the high-water mark of the stack, on which the policy's working memory lies.\n\n";
    text += &table(rows.iter().filter(|row| row.kind == Kind::Decision));
    text += &estimate_of_time(rows);
    Ok(text)
}

/// The rows as a table.
fn table<'r>(rows: impl Iterator<Item = &'r Row>) -> String {
    let mut text = document::row(&HEADINGS) + &document::row(&["---"; HEADINGS.len()]);
    text.extend(rows.map(|row| document::row(&row.cells())));
    text
}

/// What [`cycles`] says of the kernels; nothing where no row has an estimate.
fn estimate_of_cycles(rows: &[Row]) -> String {
    let mut lines = String::new();
    for row in rows {
        if let Some(cycles) = row.estimated_cycles {
            let per_mac = cycles as f64 / row.macs.max(1) as f64;
            let cells = [&row.network, &row.instructions.to_string(), &cycles.to_string(), &format!("{per_mac:.2}")];
            lines += &document::row(&cells);
        }
    }
    if lines.is_empty() {
        return lines;
    }
    let heading = document::row(&["network", "instructions", "estimated cycles", "per MAC"]);
    format!(
        "\n### An estimate in cycles\n\nFewer instructions can be slower ones. For the f32 kernels on a Cortex-M4 with its \
         floating-point unit, `xtask/src/cycles.rs` adds up the instruction timings that Arm publishes (Cortex-M4 Technical \
         Reference Manual r0p1, sections 3.3 and 7.2.3), with memory that never makes the core wait. It is an estimate; \
         nothing was measured on a board.\n\n{heading}{}{lines}",
        document::row(&["---"; 4])
    )
}

/// The furuta policy's rate on the Cortex-M4F; nothing where it was not measured.
fn estimate_of_time(rows: &[Row]) -> String {
    let furuta = |row: &&Row| row.target == ESTIMATED && row.policy.as_deref() == Some("furuta");
    rows.iter().find(furuta).map_or(String::new(), |row| {
        format!(
            "\nAt {:.0} MHz and an assumed {CYCLES:.0} cycles an instruction a decision of {} instructions, the furuta policy's in f32 on \
             {ESTIMATED}, is about {:.1} kHz: an estimate.\n",
            CLOCK_HZ / 1e6,
            row.instructions,
            CLOCK_HZ / CYCLES / row.instructions.max(1) as f64 / 1e3
        )
    })
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
            estimated_cycles: (kind == Kind::Chain).then_some(19_000),
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
        let keys =
            ["target", "network", "format", "instructions", "macs", "flash", "ram", "stack", "kind", "policy", "code"];
        for key in keys {
            assert!(json.get(key).is_some(), "{key}");
        }
        assert_eq!((&json["kind"], &json["policy"]), (&"chain".into(), &serde_json::Value::Null));
    }

    #[test]
    fn cycles_and_time_are_called_estimates() {
        let rows = [row(Kind::Chain), row(Kind::Decision)];
        let text = markdown(&crate::root(), &rows).unwrap();
        assert!(text.contains("QEMU counts instructions, not cycles"), "{text}");
        assert!(text.contains("| 24-64-64-6 | 12032 | 19000 | 3.16 |"), "{text}");
        // 168e6 / 2 / 12,032 is 6981.
        assert!(
            text.contains("168 MHz and an assumed 2 cycles an instruction a decision of 12032 instructions"),
            "{text}"
        );
        assert!(text.contains("is about 7.0 kHz: an estimate."), "{text}");
        let other = Row { target: "m0".into(), estimated_cycles: None, ..rows[1].clone() };
        let text = markdown(&crate::root(), &[other]).unwrap();
        assert!(!text.contains("kHz") && !text.contains("estimated cycles"), "{text}");
    }

    /// What is to be measured is there, and of the format that its row will name.
    #[test]
    fn the_policies_are_of_their_format_and_the_networks_have_all_widths() {
        for (policy, format) in POLICIES {
            let bytes = Bytes::read(&digests::committed(&crate::root(), policy)).unwrap();
            let found = Artefact::new(bytes.get()).unwrap().velocity().format();
            assert_eq!(FORMATS[found as usize], format, "{policy}");
            assert_eq!(network_of(&bytes).unwrap().split('-').count(), 4);
        }
        assert!(CHAINS.iter().all(|chain| chain.split('-').count() == 4));
    }
}
