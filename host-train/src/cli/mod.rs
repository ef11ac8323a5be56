//! The command line: what may be typed, and how the answer comes out.
//!
//! Results go to standard output, progress and errors to standard error. With `--json` the last line of standard output
//! is one JSON object and nothing else is printed there. An error is one sentence that says what to do; the exit code
//! is 2 for wrong use and 1 for failure. No panics, a closed pipe included.

mod bench;
mod bench_env;
mod bench_update;
mod check_env;
mod distill;
mod envs;
mod eval;
mod export;
mod finetune;
mod hil;
mod hil_finetune;
mod inspect;
mod plot;
mod profile;
mod render;
mod report;
mod resume;
mod sweep;
mod toy;
mod train;
mod verify;

pub use finetune::FinetuneArgs;
pub use hil::HilArgs;
pub use sweep::{Engine, SweepArgs, SweepRunArgs};

use crate::config::{Config, Sources};
use crate::env::Decision;
use crate::evaluate::env_for;
use crate::report::curves::{Axis, Centre, Metric};
use crate::{Error, Result};
use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};
use flowlet::policy::Artefact;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Trains flow-matching policies and exports them for microcontrollers; without a command it trains on the pendulum.
#[derive(Debug, Parser)]
#[command(name = "host-train", version, disable_help_subcommand = true)]
struct Cli {
    /// Print one JSON object as the last line of standard output
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train a policy, evaluate it and export it into a run folder
    Train(TrainArgs),
    /// Go on with a run that was stopped, killed or finished
    Resume(ResumeArgs),
    /// Train many independent runs of one file, here, on a Ray cluster or by Slurm, and report on them
    Sweep(SweepArgs),
    /// One run of a sweep, as its engine starts it
    #[command(hide = true)]
    SweepRun(SweepRunArgs),
    /// Evaluate an exported policy with the sampler that runs on the device
    Eval(EvalArgs),
    /// Let a board decide for a plant that is simulated here, and compare the return with its own evaluation
    Hil(HilArgs),
    /// Show what an exported policy holds, or where a run stands
    Inspect(InspectArgs),
    /// Run the self-test of an exported policy
    Verify(FileArgs),
    /// Export a policy anew, into the firmware, or as Rust source, safetensors or ONNX
    Export(ExportArgs),
    /// Learn a policy that needs one step from a trained run, and tell what it loses
    Distill(DistillArgs),
    /// Let a policy go on learning on a changed plant, by the learner that runs on the device
    Finetune(FinetuneArgs),
    /// Tabulate return, multiply-accumulates, instructions and memory by solver steps and particles
    Profile(ProfileArgs),
    /// Draw an episode on a task of the Control Suite: a film strip or an animation
    Render(RenderArgs),
    /// List the environments with their limits, defaults and physics
    Envs,
    /// Replay recorded rollouts against an environment and report the largest differences
    CheckEnv(CheckEnvArgs),
    /// Measure parts of flowlet against exact answers
    #[command(subcommand, disable_help_subcommand = true, arg_required_else_help = false)]
    Bench(BenchCommand),
    /// Draw learning curves of runs, with 95 % bands over seeds
    Plot(PlotArgs),
    /// Sum up the final evaluations of runs in a Markdown table, with 95 % intervals over seeds
    Report(ReportArgs),
    /// Learn to sample densities in the plane from their energies alone, compare methods and draw them
    Toy(ToyArgs),
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

/// Options of `train`.
#[derive(Args, Clone, Debug, Default)]
pub struct TrainArgs {
    /// Environment; `envs` lists them [default: pendulum]
    #[arg(long, value_name = "NAME")]
    pub env: Option<String>,
    /// Algorithm [default: rfm]
    #[arg(long, value_name = "NAME")]
    pub algo: Option<String>,
    /// Seed of everything random; with --seeds the first of them [default: 1]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Number of seeds to train, each in a folder of its own beneath the run's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub seeds: Option<u32>,
    /// Seeds trained side by side; the results do not depend on it [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub jobs: Option<u32>,
    /// Control steps to train for [default: the environment's]
    #[arg(long, value_name = "N")]
    pub total_timesteps: Option<u64>,
    /// The run folder itself [default: a new one under runs/]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Set a key of config.toml, for example rfm.gamma=0.98 or env.mass=1.2; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Constants to start from: default or paper
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// Configuration to start from, for example another run's config.toml
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Policy to start from instead of fresh networks
    #[arg(long, value_name = "POLICY.flw")]
    pub init: Option<PathBuf>,
    /// Recorded transitions to start the replay buffer with, as `eval --record` writes them
    #[arg(long, value_name = "LOG.csv")]
    pub replay: Option<PathBuf>,
    /// Write TensorBoard event files into the run folder
    #[arg(long)]
    pub tensorboard: bool,
}

/// Options of `eval`.
#[derive(Args, Clone, Debug)]
pub struct EvalArgs {
    /// The exported policy, a run folder, or the folder of several seeds
    #[arg(long, value_name = "FILE|RUN")]
    pub policy: PathBuf,
    /// Environment [default: the one it was trained on]
    #[arg(long, value_name = "NAME")]
    pub env: Option<String>,
    /// Episodes to average over
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub episodes: u32,
    /// Seed of start states and samples
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Samples from which the critic picks in the best-of return
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub best_of: u32,
    /// Change the physics, for example env.mass=1.2; may be repeated
    #[arg(long, value_name = "env.KEY=VALUE")]
    pub set: Vec<String>,
    /// Write the transitions of the plain samples, as `train --replay` reads them
    #[arg(long, value_name = "LOG.csv")]
    pub record: Option<PathBuf>,
}

/// Options of `resume`.
#[derive(Args, Clone, Debug)]
pub struct ResumeArgs {
    /// The run folder, or the folder of several seeds
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// Control steps to train for in all [default: as in the run's config.toml]
    #[arg(long, value_name = "N")]
    pub total_timesteps: Option<u64>,
    /// Seeds trained side by side; the results do not depend on it [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub jobs: Option<u32>,
}

/// What `inspect` looks at.
#[derive(Args, Clone, Debug)]
pub struct InspectArgs {
    /// An exported policy, or a run folder
    #[arg(value_name = "FILE|RUN")]
    pub path: PathBuf,
}

/// The file of `verify`.
#[derive(Args, Clone, Debug)]
pub struct FileArgs {
    /// The exported policy
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// Options of `export`.
#[derive(Args, Clone, Debug)]
pub struct ExportArgs {
    /// A policy file, or a run folder with one
    #[arg(value_name = "FILE|RUN")]
    pub source: PathBuf,
    /// Put the policy where the firmware is built from, without its critic
    #[arg(long)]
    pub firmware: bool,
    /// Where to write the policy [default: beside it, for formats other than flw]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// File format [default: by the ending of --out, else flw]
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<crate::export::Format>,
    /// Which graph an ONNX file holds [default: policy]
    #[arg(long, value_name = "PART")]
    pub onnx_part: Option<crate::export::onnx::Part>,
    /// Solver steps of a decision [default: as it is]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub steps: Option<u16>,
    /// Solver: euler, midpoint, heun or rk4 [default: as it is]
    #[arg(long, value_name = "NAME")]
    pub solver: Option<String>,
    /// Leave the critic out
    #[arg(long)]
    pub without_critic: bool,
    /// Put the velocity network into another number format, and tell what return that costs [default: as it is]
    #[arg(long, value_name = "FORMAT")]
    pub quantize: Option<Quantisation>,
    /// With --quantize: environment to calibrate and compare in [default: the one it was trained on]
    #[arg(long, value_name = "NAME", requires = "quantize")]
    pub env: Option<String>,
    /// With --quantize: paired episodes of the comparison [default: 100]
    #[arg(long, value_name = "N", requires = "quantize", value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    pub episodes: Option<u32>,
    /// With --quantize: seed of start states and noise [default: 1]
    #[arg(long, value_name = "N", requires = "quantize", value_parser = clap::value_parser!(u64).range(0..1 << 24))]
    pub seed: Option<u64>,
}

/// A number format that `export` can make.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantisation {
    /// 8-bit weights, 16-bit activations, 32-bit sums
    Int8,
}

/// Options of `profile`.
#[derive(Args, Clone, Debug)]
pub struct ProfileArgs {
    /// A policy file, or a run folder with one
    #[arg(value_name = "FILE|RUN")]
    pub source: PathBuf,
    /// Environment [default: the one it was trained on]
    #[arg(long, value_name = "NAME")]
    pub env: Option<String>,
    /// Episodes of each row
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub episodes: u32,
    /// Seed of start states and samples
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

/// Options of `render`.
#[derive(Args, Clone, Debug)]
pub struct RenderArgs {
    /// The exported policy, or a run folder [default: random actions]
    #[arg(long, value_name = "FILE|RUN", required_unless_present = "env")]
    pub policy: Option<PathBuf>,
    /// A task of the Control Suite [default: the one the policy was trained on]
    #[arg(long, value_name = "NAME")]
    pub env: Option<String>,
    /// The picture: a film strip, *.png, or an animation, *.gif or *.apng [default: a film strip called as the task]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Seed of the start and the samples; it is the first episode of `eval` with this seed
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Pictures, at equal distances [default: 6 of a film strip, 20 a second of an animation]
    #[arg(long, value_name = "N", value_parser = size(100_000))]
    pub frames: Option<usize>,
    /// Second of the episode to begin at
    #[arg(long, value_name = "S", default_value_t = 0.0)]
    pub from: f64,
    /// Seconds to draw [default: to the end; of an animation at most 10]
    #[arg(long, value_name = "S")]
    pub seconds: Option<f64>,
    /// Pixels of a picture from left to right
    #[arg(long, value_name = "W", default_value_t = 320, value_parser = clap::value_parser!(u32).range(16..=4096))]
    pub width: u32,
    /// Pixels of a picture from top to bottom
    #[arg(long, value_name = "H", default_value_t = 240, value_parser = clap::value_parser!(u32).range(16..=4096))]
    pub height: u32,
    /// Camera of the task's model, or free for one that stands still [default: one that shows the task]
    #[arg(long, value_name = "NAME")]
    pub camera: Option<String>,
    /// Draw the greedy choice from so many samples by the critic [default: plain samples]
    #[arg(long, value_name = "N", requires = "policy", value_parser = size(4096))]
    pub best_of: Option<usize>,
    /// Change the physics, for example env.mass=1.2; may be repeated
    #[arg(long, value_name = "env.KEY=VALUE")]
    pub set: Vec<String>,
}

/// Options of `distill`.
#[derive(Args, Clone, Debug)]
pub struct DistillArgs {
    /// The folder of a run of rfm
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// How to learn it
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub method: crate::distill::Method,
    /// Updates of each method
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub updates: u64,
    /// Episodes of the reported losses; half as many others choose between the methods
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    pub episodes: u32,
    /// Seed of everything random
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..1 << 24))]
    pub seed: u64,
    /// Width of the hidden layers [default: the trained policy's]
    #[arg(long, value_name = "H", value_parser = size(1024))]
    pub width: Option<usize>,
}

/// Options of `check-env`.
#[derive(Args, Clone, Debug)]
pub struct CheckEnvArgs {
    /// A record, or a folder of records (*.json)
    #[arg(value_name = "FILE|DIR")]
    pub path: PathBuf,
    /// Environment to replay on [default: the one each record names]
    #[arg(long, value_name = "NAME")]
    pub env: Option<String>,
}

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

/// Options of `plot`.
#[derive(Args, Clone, Debug)]
pub struct PlotArgs {
    /// Run folders, or folders of runs
    #[arg(value_name = "RUN", required = true)]
    pub runs: Vec<PathBuf>,
    /// The picture, *.svg or *.png
    #[arg(long, value_name = "FILE", default_value = "curves.svg")]
    pub out: PathBuf,
    /// Which return
    #[arg(long, value_enum, default_value = "single")]
    pub metric: Metric,
    /// Along control steps or CPU-seconds
    #[arg(long, value_enum, default_value = "steps")]
    pub x: Axis,
    /// Mean or interquartile mean of the seeds
    #[arg(long, value_enum, default_value = "mean")]
    pub centre: Centre,
}

/// Options of `report`.
#[derive(Args, Clone, Debug)]
pub struct ReportArgs {
    /// Run folders, or folders of runs
    #[arg(value_name = "RUN", required = true)]
    pub runs: Vec<PathBuf>,
    /// Where to write the table [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Runs to compare with, seed by seed
    #[arg(long, value_name = "RUN")]
    pub baseline: Option<PathBuf>,
    /// Count the seeds whose single-sample return is below this
    #[arg(long, value_name = "RETURN", allow_negative_numbers = true)]
    pub threshold: Option<f64>,
}

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

/// Options of `bench update`; what is not given has the preset's value.
#[derive(Args, Clone, Debug)]
pub struct UpdateArgs {
    /// Algorithm: rfm or sac
    #[arg(long, value_name = "NAME", default_value = "rfm")]
    pub algo: String,
    /// Constants to start from: default or paper
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub preset: String,
    /// Width of the observation
    #[arg(long, value_name = "N", default_value = "17", value_parser = size(1024))]
    pub obs: usize,
    /// Width of the action
    #[arg(long, value_name = "N", default_value = "6", value_parser = size(256))]
    pub act: usize,
    /// Transitions in an update of the critics
    #[arg(long, value_name = "B", value_parser = size(65_536))]
    pub batch: Option<usize>,
    /// States in an update of the actor, rfm's
    #[arg(long, value_name = "A", value_parser = size(65_536))]
    pub actor_batch: Option<usize>,
    /// Width of all hidden layers
    #[arg(long, value_name = "H", value_parser = size(1024))]
    pub hidden: Option<usize>,
    /// Policy samples of a state, among which the critics choose, rfm's
    #[arg(long, value_name = "P", value_parser = size(1024))]
    pub particles: Option<usize>,
    /// Candidates of a posterior mean, rfm's; the proposals keep their proportions
    #[arg(long, value_name = "K", value_parser = size(65_536))]
    pub samples: Option<usize>,
    /// Euler steps of a policy sample, rfm's
    #[arg(long, value_name = "S", value_parser = size(1024))]
    pub integration_steps: Option<usize>,
    /// none or diagonal, rfm's; diagonal is the published estimator, whose candidates all come from the source
    #[arg(long, value_name = "NAME", value_parser = ["none", "diagonal"])]
    pub control_variate: Option<String>,
}

/// Parses a whole number from 1 to `most`.
fn size(most: u64) -> impl TypedValueParser<Value = usize> {
    clap::value_parser!(u64).range(1..=most).map(|n| n as usize)
}

/// Options of `toy`.
#[derive(Args, Clone, Debug)]
pub struct ToyArgs {
    /// two-moons, eight-gaussians, rings, checkerboard, or all
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// First seed
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Number of seeds; with several the table has 95 % intervals
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub seeds: u32,
    /// Folder of the pictures
    #[arg(long, value_name = "DIR", default_value = "runs/toy")]
    pub out: PathBuf,
    /// Only one method: rfm, ne, ge, or score for reverse score matching [default: rfm, ne and ge]
    #[arg(long, value_name = "NAME")]
    pub method: Option<String>,
    /// Source of the noise for rfm and score: gaussian, laplace or logistic [default: gaussian]
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
    /// Steps of Adam
    #[arg(long, value_name = "N", default_value_t = 3000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub updates: u32,
    /// Evaluations of the energy for a training point
    #[arg(long, value_name = "K", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub samples: u32,
}

/// Where results go.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    json: bool,
}

impl Output {
    /// Prints a line for people; nothing with `--json`.
    pub fn line(&self, text: &str) {
        if !self.json {
            print(text);
        }
    }

    /// Prints the JSON object that `--json` asks for; nothing without it.
    pub fn object(&self, object: &serde_json::Value) {
        if self.json {
            print(&object.to_string());
        }
    }
}

/// A line on standard output. Whoever closed the pipe does not want to read it; a full disk is a failure.
fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    if let Err(e) = writeln!(stdout, "{text}").and_then(|()| stdout.flush())
        && e.kind() != std::io::ErrorKind::BrokenPipe
    {
        note(&format!("error: cannot write the result to standard output ({e}): check where it goes"));
        std::process::exit(1);
    }
}

/// A line on standard error: progress, warnings, errors.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Runs the program and says how it went.
pub fn main() -> ExitCode {
    survive_full_disks();
    let done = match Cli::try_parse() {
        Ok(cli) => run(cli),
        Err(e) if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            let _ = e.print();
            Ok(())
        }
        Err(e) => {
            let words: Vec<String> = std::env::args_os().map(|w| w.to_string_lossy().into_owned()).collect();
            Err(Error::usage(sentence(&e, &words)))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            note(&format!("error: {e}"));
            ExitCode::from(e.exit_code())
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let output = Output { json: cli.json };
    match cli.command {
        None => train::run(&TrainArgs::default(), output),
        Some(Command::Train(args)) => train::run(&args, output),
        Some(Command::Resume(args)) => resume::run(&args, output),
        Some(Command::Sweep(args)) => sweep::run(&args, output),
        Some(Command::SweepRun(args)) => sweep::run_one(&args),
        Some(Command::Eval(args)) => eval::run(&args, output),
        Some(Command::Hil(args)) => hil::run(&args, output),
        Some(Command::Inspect(args)) => inspect::run(&args, output),
        Some(Command::Verify(args)) => verify::run(&args, output),
        Some(Command::Export(args)) => export::run(&args, output),
        Some(Command::Distill(args)) => distill::run(&args, output),
        Some(Command::Finetune(args)) => finetune::run(&args, output),
        Some(Command::Profile(args)) => profile::run(&args, output),
        Some(Command::Render(args)) => render::run(&args, output),
        Some(Command::Envs) => envs::run(output),
        Some(Command::CheckEnv(args)) => check_env::run(&args, output),
        Some(Command::Bench(command)) => bench::run(&command, output),
        Some(Command::Plot(args)) => plot::run(&args, output),
        Some(Command::Report(args)) => report::run(&args, output),
        Some(Command::Toy(args)) => toy::run(&args, output),
    }
}

/// clap's several lines as one sentence with what to do.
fn sentence(error: &clap::Error, words: &[String]) -> String {
    let text = error.to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let first = first.strip_prefix("error: ").unwrap_or(first);
    let first = first.split_whitespace().collect::<Vec<_>>().join(" ");
    let root = Cli::command();
    // clap's errors do not say which command they are about: follow the words as far as they name commands.
    let mut named = Vec::new();
    let mut reached = &root;
    for word in words.iter().skip(1) {
        if let Some(inner) = reached.find_subcommand(word) {
            named.push(word.as_str());
            reached = inner;
        }
    }
    if error.kind() == ErrorKind::InvalidSubcommand {
        let names = reached.get_subcommands().filter(|command| !command.is_hide_set());
        let names: Vec<&str> = names.map(clap::Command::get_name).collect();
        return format!("{first}: use one of {}", names.join(", "));
    }
    let command = named.iter().map(|name| format!("{name} ")).collect::<String>();
    let hint = if command.is_empty() && error.kind() == ErrorKind::UnknownArgument {
        "; training options follow the word train"
    } else {
        ""
    };
    format!("{first}: type `host-train {command}--help` for what is expected{hint}")
}

/// A file that may not grow any more is an error of the write, as a full disk is, and does not end the program.
fn survive_full_disks() {
    #[cfg(unix)]
    {
        // Where the signal cannot be watched, its default stays: the program ends there, and no file is half written.
        let _ = signal_hook::flag::register(signal_hook::consts::signal::SIGXFSZ, Arc::default());
    }
}

/// The physics that a policy file was trained with, where it lies in the folder of a run in the environment `name`.
fn trained_physics(policy: &Path, name: &str) -> Result<BTreeMap<String, f64>> {
    let Some(file) = policy.parent().map(|dir| dir.join("config.toml")).filter(|file| file.is_file()) else {
        return Ok(BTreeMap::new());
    };
    let trained = Config::resolve(&Sources { file: Some(&file), ..Sources::default() })?;
    Ok(if trained.env.name == name { trained.env.physics } else { BTreeMap::new() })
}

/// The environment that a policy plays: its own, or the one that is asked for. Channels of equal names are taken for the same
/// robot, so what else may differ, the task, is told.
fn stage(artefact: &Artefact<'_>, name: Option<&str>, physics: &BTreeMap<String, f64>) -> Result<Decision> {
    let env = env_for(artefact, name, physics)?;
    if artefact.name() != env.spec().name {
        tell_transfer(artefact.name(), &env.spec().name);
    }
    Ok(env)
}

/// The word on a transfer.
fn tell_transfer(own: &str, other: &str) {
    note(&format!("the policy was trained on {own}, not on {other}, which it plays here: leave --env out for {own}"));
}

/// A flag that Ctrl-C (or SIGTERM) raises, for a loop that ends in good order; a second one ends the program at once.
pub fn interrupt_flag() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&flag);
    ctrlc::set_handler(move || {
        if !raised.swap(true, Ordering::SeqCst) {
            note("stopping in good order; once more to stop at once");
        } else {
            // 128 + SIGINT, as a shell reports it.
            std::process::exit(130);
        }
    })
    .map_err(|e| Error::failure(format!("cannot watch for Ctrl-C ({e}): start the program again")))?;
    Ok(flag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(line: &str) -> String {
        let words: Vec<String> = format!("host-train {line}").split_whitespace().map(String::from).collect();
        sentence(&Cli::try_parse_from(&words).unwrap_err(), &words)
    }

    #[test]
    fn definitions_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn json_may_stand_before_and_after_the_command() {
        for line in ["--json envs", "envs --json", "--json", "train --json --env cartpole"] {
            let words = std::iter::once("host-train").chain(line.split_whitespace());
            assert!(Cli::try_parse_from(words).unwrap().json, "{line}");
        }
    }

    #[test]
    fn wrong_use_is_one_sentence() {
        for (line, words) in [
            ("tran", vec!["'tran'", "train", "check-env"]),
            ("bench foo", vec!["'foo'", "use one of estimator"]),
            ("bench env", vec!["--env", "host-train bench env --help"]),
            ("bench", vec!["estimator", "host-train bench --help"]),
            ("bench estimator --dims x", vec!["'x'", "host-train bench estimator --help"]),
            ("train --sed 3", vec!["'--sed'", "host-train train --help"]),
            ("--seed 3", vec!["'--seed'", "follow the word train"]),
            ("train --seed x", vec!["'x'", "--seed"]),
            ("train --seed -1", vec!["-1"]),
            ("eval", vec!["--policy", "host-train eval --help"]),
            ("eval --policy f --episodes 0", vec!["--episodes", "1..=1000000", "host-train eval --help"]),
            ("toy rings --seeds 0", vec!["--seeds", "host-train toy --help"]),
            ("inspect", vec!["FILE", "host-train inspect --help"]),
            ("check-env", vec!["FILE|DIR", "host-train check-env --help"]),
            ("plot", vec!["RUN", "host-train plot --help"]),
            ("plot r --metric best", vec!["'best'", "single, greedy, train"]),
            ("report", vec!["RUN", "host-train report --help"]),
            ("export f --steps 0", vec!["--steps"]),
            ("hil", vec!["--port", "host-train hil --help"]),
            ("hil --port p --patience 0", vec!["--patience"]),
            ("sweep", vec!["FILE", "host-train sweep --help"]),
            ("sweep f --engine sge", vec!["'sge'", "local, ray, slurm"]),
        ] {
            let sentence = refusal(line);
            assert!(!sentence.contains('\n'), "{sentence}");
            for word in words {
                assert!(sentence.contains(word), "{line}: {sentence}");
            }
        }
    }
}
