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

pub use bench::{BenchCommand, EstimatorArgs};
pub use bench_env::BenchEnvArgs;
pub use bench_update::UpdateArgs;
pub use check_env::CheckEnvArgs;
pub use distill::DistillArgs;
pub use eval::EvalArgs;
pub use export::{ExportArgs, Quantisation};
pub use finetune::FinetuneArgs;
pub use hil::HilArgs;
pub use inspect::InspectArgs;
pub use plot::PlotArgs;
pub use profile::ProfileArgs;
pub use render::RenderArgs;
pub use report::ReportArgs;
pub use resume::ResumeArgs;
pub use sweep::{Engine, SweepArgs, SweepRunArgs};
pub use toy::ToyArgs;
pub use train::TrainArgs;
pub use verify::FileArgs;

use crate::config::{Config, Sources};
use crate::env::Decision;
use crate::evaluate::env_for;
use crate::{Error, Result};
use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use flowlet::policy::Artefact;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
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

/// Parses a whole number from 1 to `most`.
fn size(most: u64) -> impl TypedValueParser<Value = usize> {
    clap::value_parser!(u64).range(1..=most).map(|n| n as usize)
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
