//! `bench env`: control steps per CPU-second, on one thread and on two.

use super::Output;
use super::eval::assignment;
use crate::bench::env::{ROUNDS, Speed, measure};
use crate::env;
use crate::{Error, Result};
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Options of `bench env`.
#[derive(Args, Clone, Debug)]
pub struct BenchEnvArgs {
    /// Environment; `envs` lists them
    #[arg(long, value_name = "NAME")]
    pub env: String,
    /// CPU-seconds of each of nine rounds, on every thread
    #[arg(long, value_name = "S", default_value_t = 0.2)]
    pub seconds: f64,
    /// Change the physics, for example env.mass=1.2; may be repeated
    #[arg(long, value_name = "env.KEY=VALUE")]
    pub set: Vec<String>,
}

/// Threads of the second measurement.
const THREADS: usize = 2;
/// Longest round, CPU-seconds.
const LONGEST: f64 = 3600.0;

/// Runs the command.
pub(super) fn run(args: &BenchEnvArgs, output: Output) -> Result<()> {
    if !(1e-3..=LONGEST).contains(&args.seconds) {
        return Err(Error::usage(format!("--seconds {}: give 0.001 to {LONGEST}", args.seconds)));
    }
    let physics = args.set.iter().map(|pair| assignment(pair)).collect::<Result<BTreeMap<_, _>>>()?;
    let make = || env::make(&args.env, &physics);
    let (one, several) = (measure(&make, 1, args.seconds)?, measure(&make, THREADS, args.seconds)?);
    for (speed, threads) in [(one, "one thread".to_string()), (several, format!("{THREADS} threads"))] {
        let [median, slowest, fastest] = speed.per_cpu_second;
        output.line(&format!(
            "{}, {threads}: {median:.0} control steps per CPU-second, median of {ROUNDS} rounds ({slowest:.0} to \
             {fastest:.0}), {:.0} with resets; {:.0} per second",
            args.env, speed.with_resets, speed.per_second
        ));
    }
    output.object(&json!({
        "env": args.env,
        "steps_per_cpu_second": one.per_cpu_second[0],
        "with_resets_per_cpu_second": one.with_resets,
        "one_thread": object(&one),
        "two_threads": object(&several),
        "seconds_of_a_round": args.seconds,
        "rounds": ROUNDS,
    }));
    Ok(())
}

fn object(speed: &Speed) -> Value {
    let [median, slowest, fastest] = speed.per_cpu_second;
    json!({
        "steps_per_cpu_second": median,
        "slowest_round": slowest,
        "fastest_round": fastest,
        "with_resets_per_cpu_second": speed.with_resets,
        "steps_per_second": speed.per_second,
    })
}
