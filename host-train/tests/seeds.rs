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

/// Trains the seeds, prints a line each, and returns the single-sample returns and CPU-seconds.
fn table(env: &str, fixed: std::ops::Range<u64>) -> Vec<(f64, f64)> {
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
        (number("return_mean"), number("cpu_seconds"))
    };
    seeds.into_iter().map(row).collect()
}

#[test]
#[ignore = "trains ten policies, about a minute of CPU"]
fn nine_of_ten_seeds_solve_the_pendulum() {
    let rows = table("pendulum", 4101..4111);
    let solved = rows.iter().filter(|(single, _)| *single >= -200.0).count();
    println!("{solved} of {} at -200 or more", rows.len());
    assert!(10 * solved >= 9 * rows.len());
    assert!(rows.iter().all(|(_, cpu)| *cpu <= 20.0), "a seed took more than 20 CPU-seconds");
}

#[test]
#[ignore = "trains five policies, about a minute of CPU"]
fn most_seeds_swing_the_cartpole_up() {
    let rows = table("cartpole", 4101..4106);
    let mean = rows.iter().map(|(single, _)| single).sum::<f64>() / rows.len() as f64;
    println!("mean {mean:.1}");
    // Ten other seeds had a mean of 814 and a standard deviation of 26; a policy that does not swing up stays below 200.
    assert!(mean >= 700.0, "{mean}");
}
