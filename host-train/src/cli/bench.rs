//! `bench estimator`: measures flowlet's posterior-mean estimators and says whether the default keeps its promises.

use super::{BenchEnvArgs, Output, UpdateArgs, bench_env, bench_update, note};
use crate::bench::contenders::{AUTO, AUTO_PARTICLES, CONTENDERS, PUBLISHED};
use crate::bench::grid::{self, Cell, Grid, POINTS, repetitions};
use crate::bench::targets::MOST_DIMS;
use crate::bench::{heatmap, particles, report};
use crate::run::write_atomic;
use crate::{Error, Result};
use clap::{Args, Subcommand};
use cpu_time::ProcessTime;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Options of `bench estimator`.
#[derive(Args, Clone, Debug)]
pub struct EstimatorArgs {
    /// Dimensions from 1 to 12, separated by commas or spaces [default: 1 2 6 12]
    #[arg(long, value_name = "D", num_args = 1.., value_delimiter = ',', allow_negative_numbers = true)]
    pub dims: Vec<i64>,
    /// Temperatures from 0.005 to 100 [default: 1 0.2 0.05 0.02 0.005]
    #[arg(long, value_name = "L", num_args = 1.., value_delimiter = ',', allow_negative_numbers = true)]
    pub lambda: Vec<f64>,
    /// Evaluations of Q for an estimate, from 4 to 4096; those for training the particles are not in K [default: 8 16
    /// 32 64 96 128 512]
    #[arg(long, value_name = "K", num_args = 1.., value_delimiter = ',', allow_negative_numbers = true)]
    pub samples: Vec<i64>,
    /// Seed of targets, points and estimates
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true)]
    pub seed: u64,
    /// Folder of the table and the pictures; what an earlier bench left there is replaced
    #[arg(long, value_name = "DIR", default_value = "runs/bench-estimator")]
    pub out: PathBuf,
}

/// What `bench` can measure.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Compare the posterior-mean estimators on targets with known posteriors; about nine CPU-minutes by default
    Estimator(EstimatorArgs),
    /// Measure updates per CPU-second, and their share of what the machine's matrix products reach
    Update(UpdateArgs),
    /// Measure control steps per CPU-second of an environment, on one thread and on two
    Env(BenchEnvArgs),
}

/// Largest number of evaluations: what a machine's memory and a user's patience stand.
const MOST_SAMPLES: usize = 4096;
/// Fewest evaluations: every proposal of a mixture gets one candidate.
const FEWEST_SAMPLES: usize = 4;
/// Temperatures: below the least, peaks of Q are narrower than the grid of the exact means.
const LAMBDAS: (f64, f64) = (0.005, 100.0);

/// Runs the command.
pub(super) fn run(command: &BenchCommand, output: Output) -> Result<()> {
    match command {
        BenchCommand::Estimator(args) => estimator(args, output),
        BenchCommand::Update(args) => bench_update::run(args, output),
        BenchCommand::Env(args) => bench_env::run(args, output),
    }
}

fn estimator(args: &EstimatorArgs, output: Output) -> Result<()> {
    let started = ProcessTime::now();
    let grid = grid_of(args)?;
    let out = args.out.as_path();
    // Found out before the work rather than after it.
    std::fs::create_dir_all(out).map_err(|e| {
        Error::failure(format!("cannot make the folder {} ({e}): choose another with --out", out.display()))
    })?;
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    conditions(&grid, output);
    let cells = measure(&grid, threads)?;
    output.line(&format!("\n{}\n{}", report::tables(&grid, &cells), report::verdict(&grid, &cells)));
    write(out, &grid, &cells)?;
    let seconds = started.elapsed().as_secs_f64();
    output.line(&format!("\n{seconds:.0} CPU-seconds; cells.csv and three pictures in {}", out.display()));
    let mut object = report::object(&grid, &cells);
    if let Some(object) = object.as_object_mut() {
        object.insert("seed".into(), json!(grid.seed));
        object.insert("cpu_seconds".into(), json!(seconds));
        object.insert("out".into(), json!(out));
    }
    output.object(&object);
    Ok(())
}

/// Measures with a bar on a terminal, and with a line now and then elsewhere.
fn measure(grid: &Grid, threads: usize) -> Result<Vec<Cell>> {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} targets, {eta} left");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    let count = grid::tasks(grid) as u64;
    let bar = ProgressBar::new(count).with_style(style);
    let cells = grid::run(grid, threads, &|| {
        bar.inc(1);
        let (done, every) = (bar.position(), count.div_ceil(10));
        if bar.is_hidden() && (done.is_multiple_of(every) || done == count) {
            note(&format!("{done} of {count} targets, {:.0} s", bar.elapsed().as_secs_f64()));
        }
    });
    bar.finish_and_clear();
    cells
}

/// What is compared, and how.
fn conditions(grid: &Grid, output: Output) {
    output.line(&format!(
        "posterior-mean estimators against exact means: mean squared error of the velocity per dimension, seed {}",
        grid.seed
    ));
    output.line(&format!("d {:?}, lambda {:?}, K {:?}, t {:?}", grid.dims, grid.lambdas, grid.samples, grid::TIMES));
    output.line(&format!(
        "{} targets for a (d, lambda), half separable, half mixtures, Q range 1; {POINTS} points each for a t",
        grid.targets
    ));
    let pairs = grid.dims.iter().flat_map(|d| grid.samples.iter().map(move |k| repetitions(*d, *k)));
    let (least, most) = pairs.fold((usize::MAX, 0), |(a, b), r| (a.min(r), b.max(r)));
    output.line(&format!("{least} to {most} repetitions at a point, the same points and random numbers for everyone"));
    output.line("K counts the points at which Q is evaluated, with or without its gradient");
    output.line(&format!(
        "particles: {} of a flow trained by the default on {} targets at K={}, Euler {} steps; the {} evaluations of Q \
         of that training are not counted in K",
        particles::PARTICLES,
        particles::ROUNDS * particles::POINTS,
        particles::TRAINING_SAMPLES,
        particles::STEPS,
        particles::training_evaluations()
    ));
    for contender in CONTENDERS {
        output.line(&format!("  {:32}{}", contender.name, contender.what));
    }
}

/// Writes the table and the pictures, each atomically.
fn write(out: &Path, grid: &Grid, cells: &[Cell]) -> Result<()> {
    write_atomic(&out.join("cells.csv"), report::csv(cells).as_bytes())?;
    let over = |other: usize, own: usize| move |c: &Cell| c.scores[other].mse / c.scores[own].mse;
    let title = |what: &str| format!("{what}, seed {}", grid.seed);
    let path = |name: &str| out.join(name);
    heatmap::write(&path("heatmap.svg"), &title("published over auto"), grid, cells, over(PUBLISHED, AUTO))?;
    let particles = over(PUBLISHED, AUTO_PARTICLES);
    heatmap::write(&path("heatmap-particles.svg"), &title("published over auto+particles"), grid, cells, particles)?;
    let fixed = |c: &Cell| 1.0 / c.against_fixed.ratio;
    heatmap::write(&path("heatmap-fixed.svg"), &title("best fixed proposal with eta=0 over auto"), grid, cells, fixed)
}

/// The grid that the options ask for: sorted, each value once.
fn grid_of(args: &EstimatorArgs) -> Result<Grid> {
    let standard = Grid::default();
    let dims = whole("--dims", &args.dims, 1, MOST_DIMS, standard.dims.clone())?;
    let samples = whole("--samples", &args.samples, FEWEST_SAMPLES, MOST_SAMPLES, standard.samples.clone())?;
    let (low, high) = LAMBDAS;
    if let Some(wrong) = args.lambda.iter().find(|l| !(low..=high).contains(*l)) {
        return Err(Error::usage(format!("--lambda {wrong}: give temperatures from {low} to {high}")));
    }
    let mut lambdas = if args.lambda.is_empty() { standard.lambdas.clone() } else { args.lambda.clone() };
    lambdas.sort_by(|a, b| b.total_cmp(a));
    lambdas.dedup();
    Ok(Grid { dims, lambdas, samples, seed: args.seed, ..standard })
}

/// A list of whole numbers, or the standard one when nothing was given.
fn whole(option: &str, given: &[i64], low: usize, high: usize, standard: Vec<usize>) -> Result<Vec<usize>> {
    let mut values = if given.is_empty() { standard } else { Vec::with_capacity(given.len()) };
    for value in given {
        let fitting = usize::try_from(*value).ok().filter(|v| (low..=high).contains(v));
        values.push(
            fitting
                .ok_or_else(|| Error::usage(format!("{option} {value}: give whole numbers from {low} to {high}")))?,
        );
    }
    values.sort_unstable();
    values.dedup();
    Ok(values)
}
