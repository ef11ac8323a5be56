//! Learning over seeds, through the binary and its JSON: slow, so ignored here and run by `cargo xtask test --long`.
//!
//! `cargo test --release -p host-train --test seeds -- --ignored --nocapture` prints the tables. Without `SEEDS` (a list
//! such as `SEEDS=3,14,15`) ten fixed seeds are trained.

use serde_json::Value;
use std::process::Command;

/// Trains one run and returns its report.
fn train(env: &str, seed: u64) -> Value {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let output = Command::new(env!("CARGO_BIN_EXE_host-train"))
        .args(["train", "--json", "--env", env, "--seed", &seed.to_string(), "--out", out.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(String::from_utf8_lossy(&output.stdout).lines().last().unwrap()).unwrap()
}

/// What a seed came to.
struct Row {
    single: f64,
    greedy: f64,
    cpu: f64,
}

/// Trains the seeds and prints a line each.
fn table(env: &str, fixed: std::ops::Range<u64>) -> Vec<Row> {
    let seeds: Vec<u64> = match std::env::var("SEEDS") {
        Ok(list) => list.split(',').map(|seed| seed.trim().parse().unwrap()).collect(),
        Err(_) => fixed.collect(),
    };
    let row = |seed: u64| {
        let report = train(env, seed);
        let number = |key: &str| report[key].as_f64().unwrap();
        println!(
            "{env} seed {seed}: single sample {:.1} +- {:.1}, best of 16 {:.1}, {:.1} CPU-seconds",
            number("return_mean"),
            number("return_ci95"),
            number("return_best_of"),
            number("cpu_seconds")
        );
        Row { single: number("return_mean"), greedy: number("return_best_of"), cpu: number("cpu_seconds") }
    };
    seeds.into_iter().map(row).collect()
}

#[test]
#[ignore = "trains ten policies, about half a minute of CPU"]
fn ten_of_ten_seeds_solve_the_pendulum() {
    let rows = table("pendulum", 4101..4111);
    let solved = rows.iter().filter(|row| row.single >= -200.0).count();
    println!("{solved} of {} at -200 or more", rows.len());
    assert_eq!(solved, rows.len());
    // 2 CPU-seconds on an idle machine; a busy one may take twice as long.
    assert!(rows.iter().all(|row| row.cpu <= 5.0), "a seed took more than 5 CPU-seconds");
}

#[test]
#[ignore = "trains five policies, about a minute and a half of CPU"]
fn every_seed_swings_the_cartpole_up() {
    let rows = table("cartpole", 4101..4106);
    let mean = rows.iter().map(|row| row.single).sum::<f64>() / rows.len() as f64;
    println!("mean of single samples {mean:.1}");
    // A policy that does not swing up stays below 300. Five other seeds had 836 to 862 and 827 to 860.
    assert!(rows.iter().all(|row| row.greedy >= 800.0), "a seed's greedy choice is below 800");
    assert!(rows.iter().all(|row| row.single >= 0.95 * row.greedy), "single samples are 5 % below the greedy choice");
    assert!(rows.iter().all(|row| row.cpu <= 60.0), "a seed took more than 60 CPU-seconds");
}
