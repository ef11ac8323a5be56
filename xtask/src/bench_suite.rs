//! The Control Suite's tasks natively against dm_control and EnvPool: control steps per CPU-second, and start states.
//!
//! Part of `cargo xtask bench-peers`. For each task ours and the peers run one after the other, several times, each
//! pinned to one core and by its own CPU clock; what counts is the ratio within a round. dm_control is compared without
//! the resets, EnvPool, which resets by itself, with them. The peers are the Python programs of `benches/suite`. A peer
//! that is missing or fails is a failure. The start states' moments are taken anew from dm_control and ours are held
//! against them.

use crate::bench_peers::{on_one_core, rate, sorted};
use crate::steps::output_of;
use crate::test::SUITE;
use crate::{cargo, mujoco, python};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::path::Path;

/// CPU-seconds of each of a program's nine rounds.
const SECONDS: &str = "0.1";
/// Resets of each task for the moments.
const RESETS: &str = "1000";

/// What is wanted beside dm_control; of the other tasks, to be faster.
const WANTED: [(&str, f64); 4] =
    [("cheetah-run", 5.0), ("walker-stand", 2.0), ("walker-walk", 2.0), ("walker-run", 2.0)];

/// Runs all rounds, prints the table, returns it.
pub fn run(root: &Path, rounds: u16, only: &[String]) -> Result<Value> {
    mujoco::fetch(root)?;
    let python = python::venv(root, "suite", &root.join("benches/suite/requirements.txt"))?;
    let mut build = cargo::cargo(root);
    output_of(build.args(["build", "--release", "--package", "host-train", "--bin", "host-train"]).args(SUITE))?;
    let trainer = cargo::target_directory(root).join("release/host-train");
    let tasks = tasks(root, &trainer)?;
    if let Some(unknown) = only.iter().find(|task| !tasks.contains(task)) {
        bail!("there is no task {unknown}: use some of {}", tasks.join(", "));
    }
    println!(
        "control steps per CPU-second on one core (two threads on two), in thousands; medians over {rounds} rounds; beside dm_control without \
         resets, beside EnvPool with them\n"
    );
    println!("| task | ours | two threads | dm_control | ratio | wanted | ours with resets | EnvPool | ratio |");
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|");
    let mut table = Vec::new();
    for task in tasks.iter().filter(|task| only.is_empty() || only.contains(task)) {
        let mut columns: [Vec<f64>; 7] = Default::default();
        for round in 0..rounds {
            eprintln!("{task}: round {} of {rounds}", round + 1);
            let bench = ["bench", "env", "--json", "--env", task, "--seconds", SECONDS];
            let (steps, ours) = rate(on_one_core(root, &trainer).args(bench), STEPS)?;
            let whole = ours[RESETS_TOO].as_f64().context("host-train tells no rate with resets")?;
            // Two threads have both cores.
            let (_, free) = rate(cargo::command(&trainer, root).args(bench), STEPS)?;
            let two = free["two_threads"][STEPS].as_f64().context("host-train tells no rate of two threads")?;
            let peer = |script: &str, key: &str| {
                let mut program = on_one_core(root, &python);
                rate(program.arg(root.join("benches/suite").join(script)).args([task, SECONDS]), key)
            };
            let (dm_control, _) = peer("steps_dm_control.py", STEPS)?;
            let (envpool, _) = peer("steps_envpool.py", RESETS_TOO)?;
            let row = [steps, two, dm_control, steps / dm_control, whole, envpool, whole / envpool];
            columns.iter_mut().zip(row).for_each(|(column, x)| column.push(x));
        }
        let [steps, two, dm_control, ratio, whole, envpool, over] = columns.each_mut().map(|column| sorted(column)[1]);
        let wanted = WANTED.iter().find(|(known, _)| known == task).map_or(1.0, |(_, wanted)| *wanted);
        let k = |rate: f64| format!("{:.1}", rate / 1e3);
        println!(
            "| {task} | {} | {} | {} | {ratio:.2} | {wanted} | {} | {} | {over:.2} |",
            k(steps),
            k(two),
            k(dm_control),
            k(whole),
            k(envpool)
        );
        table.push(json!({
            "task": task, "ours": steps, "two_threads": two, "dm_control": dm_control, "ratio_dm_control": ratio,
            "wanted": wanted, "ours_with_resets": whole, "envpool": envpool, "ratio_envpool": over,
        }));
    }
    println!("\nstart states: {}", starts(root, &python, &tasks)?);
    Ok(Value::Array(table))
}

const STEPS: &str = "steps_per_cpu_second";
const RESETS_TOO: &str = "with_resets_per_cpu_second";

/// The names of the suite's tasks, from the program itself.
fn tasks(root: &Path, trainer: &Path) -> Result<Vec<String>> {
    let listed = output_of(cargo::command(trainer, root).args(["envs", "--json"]))?;
    let listed: Value = serde_json::from_str(listed.lines().last().unwrap_or_default())?;
    let names = listed["envs"].as_array().into_iter().flatten().filter_map(|env| env["name"].as_str());
    // The plants' names have no dash.
    let tasks: Vec<String> = names.filter(|name| name.contains('-')).map(String::from).collect();
    if tasks.is_empty() {
        bail!("host-train lists no task of the Control Suite: it was built without the feature mujoco");
    }
    Ok(tasks)
}

/// Takes dm_control's moments anew and runs the test that holds ours against them.
fn starts(root: &Path, python: &Path, tasks: &[String]) -> Result<String> {
    let folder = tempfile::tempdir().context("there is no room for temporary files")?;
    let moments = folder.path().join("starts.json");
    let mut program = cargo::command(python, root);
    output_of(program.arg(root.join("benches/suite/starts.py")).arg(RESETS).arg(&moments).args(tasks))?;
    let mut test = cargo::cargo(root);
    test.args(["test", "--release", "--package", "host-train", "--test", "suite"]).args(SUITE);
    output_of(test.args(["--", "start_states"]).env("FLOWLET_STARTS", &moments))?;
    Ok(format!("the moments of {} tasks are those of {RESETS} resets of dm_control each", tasks.len()))
}

#[cfg(test)]
mod tests {

    #[test]
    fn every_peer_is_there_and_pinned() {
        let folder = crate::root().join("benches/suite");
        for script in ["steps_dm_control.py", "steps_envpool.py", "starts.py"] {
            assert!(folder.join(script).exists(), "{script}");
        }
        let text = std::fs::read_to_string(folder.join("requirements.txt")).unwrap();
        let packages: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        assert!(packages.len() >= 3 && packages.iter().all(|line| line.contains("==")), "{packages:?}");
        // The versions are those of the library and the models that are fetched.
        let fetched = std::fs::read_to_string(crate::root().join("host-train/mujoco/requirements.txt")).unwrap();
        for package in packages.iter().filter(|line| line.starts_with("mujoco") || line.starts_with("dm-control")) {
            assert!(fetched.lines().any(|line| line.split_whitespace().next() == Some(package)), "{package}");
        }
    }
}
