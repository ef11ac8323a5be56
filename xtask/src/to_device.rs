//! `cargo xtask to-device`: policies of the Control Suite, from the run to the core.
//!
//! Each policy is exported in f32 and in int8 without its critics, beside its run, put on boards in QEMU, and plays
//! there by `host-train hil`, MuJoCo being the plant. Its return must be the one that `host-train eval` finds with the same
//! seed, to the bit; a difference is a failure. The table says beside it what a decision takes. Without a run a short one
//! of each of `TASKS` is trained into `runs/to-device`, or found there. An episode is 1000 control steps: at one decision to
//! two of them 500 questions over the serial port, about two seconds.

use crate::boards::{self, Board};
use crate::campaign::{Campaign, Setting, Trainer};
use crate::cargo::{self, Firmware};
use crate::document::{self, row};
use crate::test::SUITE;
use crate::{mujoco, qemu, tools};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// `cargo xtask to-device`.
#[derive(clap::Args)]
pub struct Options {
    /// Run folders of rfm, or policy files [default: a short training each on cheetah-run and walker-walk]
    #[arg(value_name = "RUN|FILE")]
    runs: Vec<PathBuf>,
    /// Boards, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "m4f,m55")]
    targets: Vec<String>,
    /// Episodes on each board
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    episodes: u32,
    /// Paired episodes on the host that tell what int8 costs
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    pairs: u32,
    /// Seed of start states and noise
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Build each policy into the firmware instead of uploading it
    #[arg(long)]
    flash: bool,
    /// Put the tables into docs/suite.md; for the short trainings, which anyone can repeat
    #[arg(long, conflicts_with = "runs")]
    document: bool,
}

/// The tasks of which a short run is trained where none is named.
const TASKS: [&str; 2] = ["cheetah-run", "walker-walk"];

/// Control steps of that run.
const STEPS: &str = "40000";

/// The document and its title, should it be gone.
const DOCUMENT: (&str, &str) = ("docs/suite.md", "The DeepMind Control Suite");

/// Does it all and prints the tables.
pub fn run(root: &Path, options: &Options) -> Result<u8> {
    let boards = boards::select(root, &options.targets)?;
    tools::ensure_targets(root, &boards)?;
    tools::ensure_qemu(&boards)?;
    mujoco::fetch(root)?;
    let trainer = Trainer::build_with(root, &SUITE)?;
    let runs = if options.runs.is_empty() {
        trained(root, &trainer, &root.join("runs/to-device"), STEPS)?
    } else {
        options.runs.iter().map(std::path::absolute).collect::<Result<_, _>>().context("cannot tell the folder")?
    };
    let plays = Plays { root, trainer: &trainer, episodes: options.episodes, seed: options.seed, flash: options.flash };
    let (block, failures) = plays.all(&runs, &boards, options.pairs)?;
    println!("{block}");
    for failure in &failures {
        println!("failed: {failure}");
    }
    if options.document && failures.is_empty() {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let command = format!("cargo xtask {}", words.join(" "));
        document::write(&root.join(DOCUMENT.0), DOCUMENT.1, &command, &block)?;
    }
    Ok(u8::from(!failures.is_empty()))
}

/// The check of the long list: short trainings in a folder of their own, every return equal on both boards.
pub fn check(root: &Path, program: &Path, boards: &[Board]) -> Result<String> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let trainer = Trainer::at(root, program);
    let runs = trained(root, &trainer, folder.path(), "6000")?;
    let plays = Plays { root, trainer: &trainer, episodes: 5, seed: 1, flash: false };
    let (_, failures) = plays.all(&runs, boards, 2)?;
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(format!("{} policies in two formats on {} boards", runs.len(), boards.len()))
}

/// The runs of [`TASKS`] in `folder`, trained where they are missing.
fn trained(root: &Path, trainer: &Trainer, folder: &Path, steps: &str) -> Result<Vec<PathBuf>> {
    let setting = |task: &str| Setting {
        name: task.to_string(),
        arguments: ["--env", task, "--total-timesteps", steps].map(String::from).to_vec(),
    };
    let settings = TASKS.map(setting).to_vec();
    let campaign = Campaign { out: folder.to_path_buf(), settings, first_seed: 1, seeds: 1 };
    let failures = campaign.run(trainer, None, true)?;
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(campaign.trainings().into_iter().map(|(folder, _, _)| root.join(folder)).collect())
}

/// What is the same for all policies.
struct Plays<'a> {
    root: &'a Path,
    trainer: &'a Trainer,
    episodes: u32,
    seed: u64,
    flash: bool,
}

/// A policy in one number format.
struct Exported {
    format: &'static str,
    path: PathBuf,
    /// What `inspect` says.
    facts: Value,
    /// What `eval` says.
    host: Value,
}

impl Plays<'_> {
    /// Every policy in both formats on every board: the tables, and a sentence for each that failed.
    fn all(&self, runs: &[PathBuf], boards: &[Board], pairs: u32) -> Result<(String, Vec<String>)> {
        let heads = [
            "policy",
            "network",
            "format",
            "bytes",
            "core",
            "return on the host",
            "on the board",
            "difference",
            "instructions a decision",
            "most",
        ];
        let mut table = row(&heads) + &row(&[&["---"; 4][..], &["---"], &["---:"; 5]].concat());
        let (mut costs, mut policies, mut failures) = (String::new(), Vec::new(), Vec::new());
        for run in runs {
            let (exported, cost) = self.export(run, pairs)?;
            costs += &cost;
            policies.extend(exported);
        }
        let mut estimates = Vec::new();
        for board in boards {
            let mut served = if self.flash { None } else { Some(self.serve(board, None)?) };
            for policy in &policies {
                eprintln!("... {} on {}", policy.path.display(), board.name);
                if self.flash {
                    // The one before ends first.
                    drop(served.take());
                    served = Some(self.serve(board, Some(&policy.path))?);
                }
                let port = served.as_ref().context("no board is there")?.port;
                match self.play(policy, board, port) {
                    Ok((line, estimate)) => {
                        table += &line;
                        estimates.extend(estimate.filter(|_| board.name == "m4f"));
                    }
                    Err(error) => failures.push(format!("{} on {}: {error:#}", policy.path.display(), board.name)),
                }
            }
        }
        let way = if self.flash { "in flash" } else { "uploaded" };
        let mut block = format!(
            "{} episodes with seed {} each, single samples, QEMU, policies {way} without critics; every return is equal to the \
             bit, or it would stand under `failed`.\n\n{table}\n{costs}",
            self.episodes, self.seed
        );
        if !estimates.is_empty() {
            let list = estimates.join(", ");
            block += &format!(
                "\nQEMU counts instructions, not cycles. At 168 MHz and an assumed 2 cycles an instruction a decision on m4f would \
                 take: {list}.\n"
            );
        }
        Ok((block, failures))
    }

    /// A board that waits, with the policy of `flash` in its flash where there is one.
    fn serve(&self, board: &Board, flash: Option<&Path>) -> Result<qemu::Served> {
        let firmware = Firmware { policy: flash.map(Path::to_path_buf), ..Firmware::default() };
        qemu::serve(board, &cargo::build_firmware(self.root, board, "hil", &firmware)?)
    }

    /// Both formats of a run's policy, with their returns here, and a line on what int8 costs.
    fn export(&self, run: &Path, pairs: u32) -> Result<(Vec<Exported>, String)> {
        eprintln!("... exporting {}", run.display());
        let folder = if run.is_dir() { run } else { run.parent().unwrap_or(run) };
        let stem = if run.is_dir() { None } else { run.file_stem() };
        let stem = stem.map_or("policy".into(), |stem| stem.to_string_lossy().into_owned());
        let source = run.to_string_lossy().into_owned();
        let (pairs, episodes, seed) = (pairs.to_string(), self.episodes.to_string(), self.seed.to_string());
        let (mut exported, mut cost) = (Vec::new(), String::new());
        for format in ["f32", "int8"] {
            let path = folder.join(format!("{stem}.device-{format}.flw"));
            let place = path.to_string_lossy().into_owned();
            let mut words = vec!["export", &source, "--without-critic", "--out", &place];
            if format == "int8" {
                words.extend(["--quantize", "int8", "--episodes", &pairs]);
            }
            let report = self.trainer.json(&words)?;
            if let Some(quantised) = report["quantized"].as_object() {
                let number = |key: &str| quantised.get(key).and_then(Value::as_f64).unwrap_or(f64::NAN);
                cost = format!(
                    "* {}: f32 returns {:.1}, int8 {:.1}, in {pairs} other paired episodes; lost {:.1} ± {:.1}.\n",
                    report["env"].as_str().unwrap_or_default(),
                    number("return_f32"),
                    number("return_int8"),
                    number("lost"),
                    number("lost_ci95")
                );
            }
            let facts = self.trainer.json(&["inspect", &place])?;
            let host = self.trainer.json(&["eval", "--policy", &place, "--episodes", &episodes, "--seed", &seed])?;
            exported.push(Exported { format, path, facts, host });
        }
        Ok((exported, cost))
    }

    /// Plays a policy on a board: its line of the table, and how long a decision would take of its period.
    fn play(&self, policy: &Exported, board: &Board, port: u16) -> Result<(String, Option<String>)> {
        let (place, line) = (policy.path.to_string_lossy(), format!("tcp:127.0.0.1:{port}"));
        let (episodes, seed) = (self.episodes.to_string(), self.seed.to_string());
        let words = ["hil", "--port", &line, "--policy", &place, "--episodes", &episodes, "--seed", &seed];
        let report = self.trainer.json(&words)?;
        let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
        let (here, there) = (number(&policy.host["return_mean"]), number(&report["return_mean"]));
        if report["equal"] != true || here.to_bits() != there.to_bits() {
            bail!("it returns {there}, and {here} on the host: run `cargo xtask digests`");
        }
        let facts = &policy.facts;
        let widths = std::iter::repeat_n(&facts["hidden"], facts["layers"].as_u64().unwrap_or(0) as usize);
        let count = |key: &str| facts[key].as_array().map_or(0, Vec::len).to_string();
        let network: Vec<String> =
            std::iter::once(count("obs")).chain(widths.map(Value::to_string)).chain([count("act")]).collect();
        let env = facts["env"].as_str().unwrap_or_default();
        let (mean, period) = (number(&report["decision"]["mean"]), number(&facts["period_us"]) / 1e3);
        let line = row(&[
            env.to_string(),
            format!("{}, {} steps", network.join("-"), facts["steps"]),
            policy.format.to_string(),
            facts["bytes"].to_string(),
            board.name.clone(),
            here.to_string(),
            there.to_string(),
            (there - here).to_string(),
            format!("{mean:.0}"),
            report["decision"]["max"].to_string(),
        ]);
        let estimate = format!("{env} in {} {:.1} ms of {period} ms", policy.format, mean * 2.0 / 168e3);
        Ok((line, Some(estimate)))
    }
}
