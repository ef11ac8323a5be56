//! `cargo xtask bench-peers`: our updates, and the Control Suite's steps, against those of other programs, in pairs.
//!
//! Each comparison runs ours and the peer's one after the other, several times, each on one core and by its own CPU
//! clock; what counts is the ratio within a pair, for both then saw the same machine. The peers are Python programs in
//! `benches/peers`, in an environment with pinned packages. A peer that is missing or fails is a failure. [`bench_suite`]
//! does the same for the environments.

use crate::{bench_suite, cargo, python};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Stdio};

/// `cargo xtask bench-peers`.
#[derive(clap::Args)]
pub struct Options {
    /// Pairs of every comparison
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Only the updates, or only the Control Suite
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Only these tasks of the Control Suite
    #[arg(long, value_name = "TASK", num_args = 1..)]
    tasks: Vec<String>,
    /// Print one JSON object as the last line
    #[arg(long)]
    json: bool,
}

/// What can be compared by itself.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Updates of the agents
    Updates,
    /// Steps and start states of the Control Suite
    Suite,
}

/// The same work on both sides.
struct Comparison {
    name: &'static str,
    /// Arguments of `host-train bench update`.
    ours: &'static [&'static str],
    /// The peer's program and its arguments.
    peer: &'static [&'static str],
    /// The ratio that is wanted.
    wanted: f64,
}

/// What the agent's users run, small and large, and the usual baseline.
const COMPARISONS: [Comparison; 3] = [
    Comparison {
        name: "rfm H=64 B=128 K=32 S=10 / JAX",
        ours: &[
            "--hidden=64",
            "--batch=128",
            "--actor-batch=128",
            "--particles=1",
            "--samples=32",
            "--integration-steps=10",
            "--control-variate=diagonal",
        ],
        peer: &["rfm_jax.py", "--hidden=64", "--batch=128", "--samples=32", "--integration-steps=10"],
        wanted: 3.0,
    },
    Comparison {
        name: "rfm H=256 B=256 K=32 S=10 / JAX",
        ours: &[
            "--hidden=256",
            "--batch=256",
            "--actor-batch=256",
            "--particles=1",
            "--samples=32",
            "--integration-steps=10",
            "--control-variate=diagonal",
        ],
        peer: &["rfm_jax.py", "--hidden=256", "--batch=256", "--samples=32", "--integration-steps=10"],
        wanted: 2.3,
    },
    Comparison {
        name: "sac H=64 B=100 / stable-baselines3",
        ours: &["--algo=sac", "--hidden=64", "--batch=100"],
        peer: &["sac_sb3.py", "--hidden=64", "--batch=100"],
        wanted: 10.0,
    },
];

/// Makes the environments, runs all pairs, prints the tables.
pub fn run(root: &Path, options: &Options) -> Result<u8> {
    let updates = if options.only != Some(Part::Suite) { updates_of(root, options)? } else { Value::Null };
    let suite = if options.only != Some(Part::Updates) {
        println!();
        bench_suite::run(root, options.rounds, &options.tasks)?
    } else {
        Value::Null
    };
    if options.json {
        println!("{}", json!({ "rounds": options.rounds, "comparisons": updates, "suite": suite }));
    }
    Ok(0)
}

/// The table of the updates.
fn updates_of(root: &Path, options: &Options) -> Result<Value> {
    let python = python::venv(root, "bench-peers", &root.join("benches/peers/requirements.txt"))?;
    let mut build = cargo::cargo(root);
    build.args(["build", "--quiet", "--release", "--package", "host-train", "--bin", "host-train"]);
    if !build.stdout(Stdio::null()).status().context("cargo cannot be started")?.success() {
        bail!("host-train does not build: see the messages above");
    }
    let trainer = cargo::target_directory(root).join("release/host-train");
    let mut table = Vec::new();
    println!(
        "updates per CPU-second on one core; medians over {} pairs, and the least and the largest ratio",
        options.rounds
    );
    println!("| update | ours | peer | ratio | wanted |\n|---|---:|---:|---:|---:|");
    for Comparison { name, ours, peer, wanted } in COMPARISONS {
        let (mut our_rates, mut peer_rates, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        let mut versions = Value::Null;
        for round in 0..options.rounds {
            eprintln!("{name}: pair {} of {}", round + 1, options.rounds);
            let mut one = on_one_core(root, &trainer);
            let mine = updates(one.args(["bench", "update", "--json"]).args(ours))?;
            let mut other = on_one_core(root, &python);
            let theirs = updates(other.arg(root.join("benches/peers").join(peer[0])).args(&peer[1..]))?;
            our_rates.push(mine.0);
            peer_rates.push(theirs.0);
            ratios.push(mine.0 / theirs.0);
            versions = theirs.1;
        }
        let [ours, peer, ratio] = [&mut our_rates, &mut peer_rates, &mut ratios].map(|rates| sorted(rates));
        println!(
            "| {name} | {:.1} | {:.1} | {:.2} ({:.2} to {:.2}) | {wanted} |",
            ours[1], peer[1], ratio[1], ratio[0], ratio[2]
        );
        table.push(json!({
            "name": name, "ours": ours[1], "peer": peer[1], "ratio": ratio[1], "ratio_least": ratio[0],
            "ratio_largest": ratio[2], "wanted": wanted, "peer_said": versions,
        }));
    }
    Ok(Value::Array(table))
}

/// The program on one core where `taskset` can say so; without it, one thread all the same.
pub(crate) fn on_one_core(root: &Path, program: &Path) -> Command {
    let pins = Command::new("taskset").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if pins.is_ok_and(|status| status.success()) {
        let mut command = cargo::command("taskset", root);
        command.args(["--cpu-list", "0"]).arg(program);
        return command;
    }
    cargo::command(program, root)
}

/// The updates per CPU-second that a program tells.
fn updates(command: &mut Command) -> Result<(f64, Value)> {
    rate(command, "updates_per_cpu_second")
}

/// A rate in the JSON object that a program prints last, and the object.
pub(crate) fn rate(command: &mut Command, key: &str) -> Result<(f64, Value)> {
    let output = command.output().with_context(|| format!("{command:?} cannot be started"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    let last = text.lines().last().unwrap_or_default();
    let object: Value = serde_json::from_str(last).with_context(|| format!("{command:?} printed no JSON object"))?;
    let rate = object[key].as_f64().filter(|rate| *rate > 0.0);
    Ok((rate.with_context(|| format!("{command:?} tells no rate"))?, object))
}

/// Least, median, largest.
pub(crate) fn sorted(rates: &mut [f64]) -> [f64; 3] {
    rates.sort_by(f64::total_cmp);
    [rates[0], rates[rates.len() / 2], rates[rates.len() - 1]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_from_the_last_line() {
        let said = |text: &str| updates(Command::new("printf").arg(text));
        assert_eq!(said("words\\n{\"updates_per_cpu_second\": 2.5}\\n").unwrap().0, 2.5);
        assert!(said("{\"updates_per_cpu_second\": null}").is_err());
        assert!(said("words").is_err());
        assert!(updates(&mut Command::new("false")).is_err());
        assert!(updates(&mut Command::new("/nowhere")).is_err());
        assert_eq!(sorted(&mut [3.0, 1.0, 2.0]), [1.0, 2.0, 3.0]);
    }

    #[test]
    fn every_peer_is_there_and_pinned() {
        let folder = crate::root().join("benches/peers");
        for comparison in COMPARISONS {
            assert!(folder.join(comparison.peer[0]).exists(), "{}", comparison.peer[0]);
        }
        let text = std::fs::read_to_string(folder.join("requirements.txt")).unwrap();
        let packages: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        assert!(!packages.is_empty() && packages.iter().all(|line| line.contains("==")), "{packages:?}");
    }
}
