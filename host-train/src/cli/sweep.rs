//! `sweep`: many independent runs from one file, here, on a Ray cluster or by Slurm, and their report; `sweep-run`, which is
//! what an engine starts for each of them.

use super::train::{jobs, sources};
use super::{Output, TrainArgs, interrupt_flag, note, sentence};
use crate::config::Config;
use crate::report::curves::{Axis, Centre, Metric};
use crate::report::group::group;
use crate::report::load::load;
use crate::report::plot::{Style, svg};
use crate::report::table::{Extras, markdown, object};
use crate::run::{result_folder, write_atomic};
use crate::sweep::attempt::{Ended, attempt, prepare};
use crate::sweep::file::Sweep;
use crate::sweep::ray::Ray;
use crate::sweep::slurm::{AFTER, Slurm, script_path};
use crate::sweep::watch::Watch;
use crate::sweep::{Plan, local, program};
use crate::{Error, Result};
use clap::{Args, Parser, ValueEnum};
use serde_json::{Value, json};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Options of `sweep`.
#[derive(Args, Clone, Debug)]
pub struct SweepArgs {
    /// What to run: a TOML file, see docs/sweep.md
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Where it runs
    #[arg(long, value_enum, default_value = "local")]
    pub engine: Engine,
    /// Runs side by side [default: one for each core here, what a cluster gives elsewhere]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub jobs: Option<u32>,
    /// Further attempts at a run that failed
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub retries: u32,
    /// Folder of the runs [default: the file's own `out`, else runs/NAME for NAME.toml]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Train nothing: table and curves of the runs that are there
    #[arg(long, conflicts_with = "dry_run")]
    pub no_training: bool,
    /// Train nothing: list the commands; with Slurm write the script and list what submits it
    #[arg(long)]
    pub dry_run: bool,
    /// With Ray: the cluster, HOST:PORT [default: RAY_ADDRESS, else one that is started here]
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<String>,
    /// With Ray: the Python that has it [default: FLOWLET_PYTHON, else python3]
    #[arg(long, value_name = "FILE")]
    pub python: Option<String>,
    /// With Slurm: an option for sbatch, for example --sbatch=--partition=short; may be repeated
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    pub sbatch: Vec<String>,
    /// With Slurm: wait for the jobs and make the report
    #[arg(long)]
    pub wait: bool,
}

/// Where runs run.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// On this machine
    Local,
    /// On a Ray cluster
    Ray,
    /// As a job array of Slurm
    Slurm,
}

/// Options of `sweep-run`.
#[derive(Args, Clone, Debug)]
pub struct SweepRunArgs {
    /// The plan
    #[arg(value_name = "PLAN")]
    pub plan: PathBuf,
    /// The number of the run in it
    #[arg(value_name = "RUN")]
    pub run: usize,
    /// Stop in good order when standard input ends
    #[arg(long)]
    pub guarded: bool,
}

/// How often the folders of the runs are looked at.
const LOOK_HERE: Duration = Duration::from_millis(500);
const LOOK_FAR: Duration = Duration::from_secs(2);

/// Runs `sweep`.
pub(super) fn run(args: &SweepArgs, output: Output) -> Result<()> {
    check(args)?;
    let sweep = Sweep::read(&args.file)?;
    let out = args.out.clone().or(sweep.out.clone()).unwrap_or_else(|| {
        let name = args.file.file_stem().map_or_else(|| "sweep".into(), |stem| stem.to_string_lossy().into_owned());
        Path::new("runs").join(name)
    });
    let root = std::env::current_dir()
        .map_err(|e| Error::failure(format!("cannot tell the working directory ({e}): change to another")))?;
    let plan = Plan::new(&root, &out, &sweep, resolve)?;
    let slurm = Slurm { options: args.sbatch.clone() };
    let asked = args.jobs.map(|jobs| jobs as usize);
    if args.dry_run && args.engine != Engine::Slurm {
        return list(&plan, output);
    }
    let ray = Ray::new(args.address.as_deref(), args.python.as_deref());
    if args.engine == Engine::Ray && !args.no_training {
        ray.check()?;
    }
    result_folder(&out)?;
    plan.claim(resolve)?;
    if args.dry_run {
        let earlier = slurm.earlier(&plan)?;
        return script(&plan, &slurm.write(&plan, asked, args.retries)?, &earlier, output);
    }
    let watch = Watch::new(&plan, &note);
    if !args.no_training && !plan.open().is_empty() {
        let stop = interrupt_flag()?;
        let (retries, here) = (args.retries, || jobs(args.jobs, plan.runs.len()));
        match args.engine {
            Engine::Local => {
                let program = own_program()?;
                watch.during(LOOK_HERE, || local::run(&plan, &program, here(), retries, &stop, &watch))?;
            }
            Engine::Ray => watch.during(LOOK_FAR, || ray.run(&plan, asked, retries, &stop, &watch))?,
            Engine::Slurm => {
                let jobs = slurm.submit(&plan, asked, retries, &watch)?;
                if !args.wait {
                    output.line("the same command with --wait waits for them and makes the report");
                    output.object(&json!({ "out": out, "runs": plan.runs.len(), "jobs": jobs }));
                    return Ok(());
                }
                watch.during(LOOK_FAR, || slurm.wait(&plan, &jobs, &stop, &watch))?;
            }
        }
    }
    tell(&plan, &watch, output)
}

/// Refuses options of another engine.
fn check(args: &SweepArgs) -> Result<()> {
    for (given, name, engine) in [
        (args.address.is_some(), "--address", Engine::Ray),
        (args.python.is_some(), "--python", Engine::Ray),
        (!args.sbatch.is_empty(), "--sbatch", Engine::Slurm),
        (args.wait, "--wait", Engine::Slurm),
    ] {
        if given && args.engine != engine {
            let of = if engine == Engine::Ray { "ray" } else { "slurm" };
            return Err(Error::usage(format!("{name} is for --engine {of}: leave it out, or choose that engine")));
        }
    }
    Ok(())
}

/// How `train` reads a setting's arguments.
fn resolve(arguments: &[String]) -> Result<Config> {
    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        train: TrainArgs,
    }
    let words: Vec<String> = ["host-train", "train"].map(String::from).into_iter().chain(arguments.to_vec()).collect();
    let line = Line::try_parse_from(&words[1..]).map_err(|e| Error::usage(sentence(&e, &words)))?;
    let own = [
        (line.train.seed.is_some(), "--seed"),
        (line.train.seeds.is_some(), "--seeds"),
        (line.train.jobs.is_some(), "--jobs"),
        (line.train.out.is_some(), "--out"),
    ];
    if let Some((_, name)) = own.into_iter().find(|(given, _)| *given) {
        return Err(Error::usage(format!(
            "arguments has {name}, and a sweep gives each run its seed and folder: leave it out"
        )));
    }
    let key = |pair: &String| pair.split_once('=').map(|(key, _)| key.trim().to_string());
    if line.train.set.iter().filter_map(key).any(|key| key == "seed") {
        return Err(Error::usage("seed is set, and a sweep gives each run its own: use seeds or first_seed"));
    }
    Config::resolve(&sources(&line.train))
}

/// This very program, whatever has been built in its place since: runs of one sweep are runs of one program.
fn own_program() -> Result<PathBuf> {
    if cfg!(target_os = "linux") { Ok("/proc/self/exe".into()) } else { program() }
}

/// The commands that a sweep would run.
fn list(plan: &Plan, output: Output) -> Result<()> {
    let commands: Vec<Vec<String>> = plan.open().into_iter().filter_map(|run| plan.command(run)).collect();
    for words in &commands {
        output.line(&format!("host-train {}", shown(words)));
    }
    output.object(&json!({ "out": plan.out, "runs": plan.runs.len(), "commands": commands }));
    Ok(())
}

/// What submits the script that was written.
fn script(plan: &Plan, commands: &[Vec<String>], earlier: &[String], output: Output) -> Result<()> {
    let path = script_path(plan);
    if !earlier.is_empty() {
        output.line(&format!("job {} of an earlier submission may still be queued: squeue tells", earlier.join(" ")));
    }
    output.line(&format!("{} is written; what submits it:", path.display()));
    for words in commands {
        output.line(&shown(words));
    }
    if commands.iter().flatten().any(|word| word == AFTER) {
        output.line("JOB stands for the number that the line before prints");
    }
    let runs = plan.runs.len();
    let object = json!({ "out": plan.out, "runs": runs, "script": path, "commands": commands, "earlier": earlier });
    output.object(&object);
    Ok(())
}

/// Words as one would type them.
fn shown(words: &[String]) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./=:,+%@".contains(c);
    let quoted = |word: &String| {
        let safe = !word.is_empty() && word.chars().all(plain);
        if safe { word.clone() } else { format!("'{}'", word.replace('\'', "'\\''")) }
    };
    words.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// Table and curves of what is there; fails where a run has.
fn tell(plan: &Plan, watch: &Watch, output: Output) -> Result<()> {
    let failures = watch.failures();
    let open = plan.open();
    let mut report = report(plan, output)?;
    if let Some(report) = report.as_object_mut() {
        report.insert("out".into(), json!(plan.out));
        report.insert("runs".into(), json!(plan.runs.len()));
        report.insert("finished".into(), json!(plan.runs.len() - open.len()));
        let sentences: Vec<&String> = failures.iter().map(|failure| &failure.sentence).collect();
        report.insert("failed".into(), json!(sentences));
    }
    output.object(&report);
    match failures.first() {
        None => Ok(()),
        Some(first) => Err(Error::failure(format!(
            "{} of {} runs failed, the first is {}: type the same command to try again",
            failures.len(),
            plan.runs.len(),
            first.sentence
        ))),
    }
}

/// Writes `table.md` and `curves.svg` and prints the table; the report's JSON.
fn report(plan: &Plan, output: Output) -> Result<Value> {
    let begun = |folder: &PathBuf| folder.join("progress.csv").is_file();
    let folders: Vec<PathBuf> = plan.runs.iter().map(|run| run.folder.clone()).filter(begun).collect();
    let (table, curves) = (plan.out.join("table.md"), plan.out.join("curves.svg"));
    if folders.is_empty() {
        note("no run has anything to show yet");
        return Ok(json!({ "table": null, "curves": null }));
    }
    let found = load(&folders)?;
    let (groups, left_out) = group(found.runs);
    for remark in found.remarks.iter().chain(&left_out) {
        note(remark);
    }
    let text = markdown(&groups, &Extras::default());
    write_atomic(&table, text.as_bytes())?;
    let style = Style { metric: Metric::Single, axis: Axis::Steps, centre: Centre::Mean };
    let drawn = match svg(&groups, style) {
        Ok(picture) => write_atomic(&curves, picture.as_bytes()).map(|()| true)?,
        Err(error) => {
            note(&format!("no curves: {error}"));
            false
        }
    };
    output.line(text.trim_end());
    output.line("");
    output.line(&format!("table   {}", table.display()));
    if drawn {
        output.line(&format!("curves  {}", curves.display()));
    }
    let mut report = object(&groups, &Extras::default());
    if let Some(report) = report.as_object_mut() {
        report.insert("table".into(), json!(table));
        report.insert("curves".into(), json!(drawn.then_some(curves)));
    }
    Ok(report)
}

/// Runs `sweep-run`.
pub(super) fn run_one(args: &SweepRunArgs) -> Result<()> {
    let plan = Plan::read(&args.plan)?;
    if args.run >= plan.runs.len() {
        return Err(Error::usage(format!(
            "run {}: {} has runs 0 to {}",
            args.run,
            args.plan.display(),
            plan.runs.len().saturating_sub(1)
        )));
    }
    #[cfg(unix)]
    if !args.guarded {
        let never = AtomicBool::new(false);
        return match prepare(&plan, args.run, &program()?, &never)? {
            Some(ready) => Err(ready.become_it()),
            None => Ok(()),
        };
    }
    let stop = interrupt_flag()?;
    if args.guarded {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            let mut bytes = [0; 64];
            while std::io::stdin().read(&mut bytes).is_ok_and(|n| n > 0) {}
            stop.store(true, Ordering::SeqCst);
        });
    }
    match attempt(&plan, args.run, &program()?, &stop) {
        Ended::Finished => Ok(()),
        Ended::Failed(sentence) => Err(Error::Failure(sentence)),
        Ended::Refused(sentence) => Err(Error::Usage(sentence)),
        Ended::Stopped => Err(Error::Interrupted("stopped in good order".into())),
    }
}
