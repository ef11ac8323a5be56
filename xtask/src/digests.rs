//! The digest of a thousand actions on the host and on every target, and what a decision costs there.
//!
//! Host and firmware run the same function on the same artefact and the same seed; the digests must be equal, because
//! sampling gives the same bits everywhere. The host's row is computed in this process.

use crate::boards::{self, Board};
use crate::cargo::{self, Firmware};
use crate::policy::{self, Bytes};
use crate::{qemu, steps, tools};
use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `cargo xtask digests`.
#[derive(clap::Args)]
pub struct Options {
    /// The policy; without it the committed one of the pendulum in f32
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Seed of the observations and of the noise
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Only these targets, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "TARGETS")]
    targets: Vec<String>,
    /// Print one JSON object as the last line
    #[arg(long)]
    json: bool,
}

/// What one target gave.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The target's name, `host` for this machine.
    pub target: String,
    /// The digest, 16 hexadecimal digits.
    pub digest: String,
    /// Mean number of instructions of a decision; QEMU counts them, the host does not.
    pub instructions_per_decision: Option<u64>,
    /// The same per multiply-accumulate.
    pub instructions_per_mac: Option<f64>,
}

/// An action takes millions of instructions on a soft-float core, and QEMU does about a hundred million a second.
const LIMIT: Duration = Duration::from_secs(900);

/// Runs every target, prints the table, fails when the digests differ.
pub fn run(root: &Path, options: &Options) -> Result<u8> {
    let boards = boards::select(root, &options.targets)?;
    // The firmware is built in another folder.
    let policy = options.policy.as_ref().map(std::path::absolute).transpose().context("--policy is no path")?;
    let policy = policy.unwrap_or_else(|| default_policy(root));
    // Read before anything is built: a bad file is the cheapest to find.
    let host = host_row(&policy, options.seed)?;
    tools::ensure_targets(root, &boards)?;
    tools::ensure_qemu(&boards)?;
    let devices = steps::parallel(&boards, |board| {
        eprintln!("... {}", board.name);
        device_row(root, board, &policy, options.seed)
    });
    let mut rows = vec![host];
    for row in devices {
        rows.push(row?);
    }
    println!("{:<10} {:<16} {:>26} {:>8}", "target", "digest", "instructions per decision", "per MAC");
    for row in &rows {
        let instructions = row.instructions_per_decision.map_or("-".to_string(), |n| n.to_string());
        let per_mac = row.instructions_per_mac.map_or("-".to_string(), |n| format!("{n:.2}"));
        println!("{:<10} {:<16} {instructions:>26} {per_mac:>8}", row.target, row.digest);
    }
    if options.json {
        println!("{}", serde_json::json!({ "rows": rows }));
    }
    agree(&rows)?;
    Ok(0)
}

/// Fails when the rows' digests are not all the same.
pub fn agree(rows: &[Row]) -> Result<()> {
    let Some(host) = rows.first() else { bail!("no target was run") };
    let others: Vec<&str> =
        rows.iter().filter(|row| row.digest != host.digest).map(|row| row.target.as_str()).collect();
    if !others.is_empty() {
        bail!("the digest of {} is not {}'s: their actions differ in bits", others.join(", "), host.target);
    }
    Ok(())
}

/// The pendulum's committed policy in f32.
pub fn default_policy(root: &Path) -> PathBuf {
    committed(root, "pendulum")
}

/// The policy that is committed for the firmware under this name.
pub fn committed(root: &Path, name: &str) -> PathBuf {
    root.join("firmware/policies").join(name).with_extension("flw")
}

/// The digest computed in this process.
pub fn host_row(path: &Path, seed: u64) -> Result<Row> {
    let bytes = Bytes::read(path)?;
    let digest = policy::digest(&bytes, seed).with_context(|| format!("{} cannot be run", path.display()))?;
    Ok(Row {
        target: "host".into(),
        digest: format!("{digest:016x}"),
        instructions_per_decision: None,
        instructions_per_mac: None,
    })
}

/// The digest computed by the firmware in QEMU.
pub fn device_row(root: &Path, board: &Board, policy: &Path, seed: u64) -> Result<Row> {
    let firmware = Firmware { policy: Some(policy.to_path_buf()), ..Firmware::default() };
    let elf = cargo::build_firmware(root, board, "digest", &firmware)?;
    let outcome = qemu::execute(board, &elf, &[format!("seed={seed}")], LIMIT, |_| ())?;
    if outcome.code != 0 {
        bail!("digest on {}: {}", board.name, outcome.lines.join("\n"));
    }
    let number = |label: &str| {
        outcome.value(label).with_context(|| format!("digest on {} prints no line `{label}`", board.name))
    };
    Ok(Row {
        target: board.name.clone(),
        digest: number("digest")?.to_string(),
        instructions_per_decision: Some(number("instructions per decision")?.parse()?),
        instructions_per_mac: Some(number("instructions per multiply-accumulate")?.parse()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(target: &str, digest: &str) -> Row {
        Row {
            target: target.into(),
            digest: digest.into(),
            instructions_per_decision: None,
            instructions_per_mac: None,
        }
    }

    #[test]
    fn a_target_that_differs_is_named() {
        agree(&[row("host", "1"), row("m0", "1")]).unwrap();
        let error = agree(&[row("host", "1"), row("m0", "1"), row("m55", "2")]).unwrap_err().to_string();
        assert!(error.contains("m55") && !error.contains("m0,"), "{error}");
        agree(&[]).unwrap_err();
    }

    #[test]
    fn json_rows_have_the_documented_keys() {
        let row = serde_json::to_value(row("host", "00ff")).unwrap();
        assert_eq!((&row["target"], &row["digest"]), (&"host".into(), &"00ff".into()));
        assert!(row["instructions_per_decision"].is_null() && row.get("instructions_per_decision").is_some());
    }
}
