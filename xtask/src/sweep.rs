//! The far engines of `host-train sweep`, tested for real on this machine: PyPI's Ray, started for the sweep, and Debian's
//! Slurm with one node, whose daemons are started here and stopped again.
//!
//! The same sweep runs on the local engine first. On each of the others one training is killed while it trains; of another
//! Ray's worker is killed, or Slurm's task cancelled. Both must be taken up again from a checkpoint. In the end every run has the local one's bits: curve, evaluation and policy, and so has the table, apart from CPU-seconds.
//! Ray is installed by pip into an environment, Slurm by `apt-get`; its files are in a temporary folder. Linux only.

use crate::steps::{Steps, output_of};
use crate::{cargo, python, tools};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// `cargo xtask sweep-engines`.
#[derive(clap::Args)]
pub struct Options {
    /// Only one of them
    #[arg(long, value_enum)]
    only: Option<Far>,
}

/// An engine.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Far {
    /// PyPI's Ray
    Ray,
    /// Debian's Slurm
    Slurm,
}

/// What is run: long enough to be killed, some seconds each.
const SWEEP: &str = "\
    envs = ['pendulum']\nalgos = ['rfm', 'sac']\nseeds = 2\ntotal_timesteps = 5000\n\
    [set]\ncheckpoint_every = 500\neval.every = 2500\neval.episodes = 4\neval.best_of = 4\n";
const RUNS: [&str; 4] =
    ["pendulum__rfm/seed-1", "pendulum__sac/seed-1", "pendulum__rfm/seed-2", "pendulum__sac/seed-2"];
/// The run whose training is killed, and the one from which its place is taken. Tasks of Slurm are numbered like the runs.
const KILLED: usize = 0;
const EVICTED: usize = 1;

/// Anything may take so long on a busy machine.
const LIMIT: Duration = Duration::from_secs(600);

/// Does the checks by themselves.
pub fn run(root: &Path, options: &Options) -> Result<u8> {
    let mut steps = Steps::default();
    check(&mut steps, root, options.only);
    Ok(steps.finish())
}

/// The checks of the test command.
pub fn steps(steps: &mut Steps, root: &Path) {
    check(steps, root, None);
}

fn check(steps: &mut Steps, root: &Path, only: Option<Far>) {
    let mut bench = None;
    steps.step("a sweep on this machine", || {
        bench = Some(Bench::new(root)?);
        Ok(String::new())
    });
    let Some(bench) = bench else { return };
    if only != Some(Far::Slurm) {
        steps.step("the same sweep on Ray", || bench.ray(root));
    }
    if only != Some(Far::Ray) {
        steps.step("the same sweep by Slurm", || bench.slurm());
    }
}

/// The trainer, and a folder with the sweep and what it came to here.
struct Bench {
    program: PathBuf,
    /// A blank in its path, as users have them.
    folder: PathBuf,
    _temporary: tempfile::TempDir,
}

impl Bench {
    fn new(root: &Path) -> Result<Self> {
        // Without features: nothing is drawn here, and the libraries for it need not be there.
        let mut build = cargo::cargo(root);
        output_of(build.args(["build", "--package", "host-train", "--bin", "host-train", "--profile", "checked"]))?;
        let program = cargo::target_directory(root).join("checked/host-train");
        let temporary = tempfile::tempdir().context("cannot make a temporary folder")?;
        let folder = temporary.path().join("some sweeps");
        fs::create_dir(&folder)?;
        fs::write(folder.join("sweep.toml"), SWEEP)?;
        let bench = Self { program, folder, _temporary: temporary };
        let output = bench.sweep("local", &[]).output().context("cannot start host-train")?;
        report(&output)?;
        for run in RUNS {
            ensure!(attempts(&bench.folder.join("local").join(run))? == ["train"], "{run} took several attempts here");
        }
        Ok(bench)
    }

    /// `host-train sweep`, into the folder `out`.
    fn sweep(&self, out: &str, words: &[&str]) -> Command {
        let mut command = cargo::command(&self.program, &self.folder);
        command.args(["sweep", "sweep.toml", "--json", "--out", out]).args(words);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn ray(&self, root: &Path) -> Result<String> {
        let python = python::venv(root, "ray", &root.join("host-train/tests/ray/requirements.txt"))?;
        let python = python.to_string_lossy();
        let mut sweep = self.sweep("ray", &["--engine", "ray", "--jobs", "2", "--python", &python]);
        let sweep = sweep.env_remove("RAY_ADDRESS").spawn().context("cannot start host-train")?;
        let killed = thread::scope(|scope| {
            let one = scope.spawn(|| self.kill("ray", KILLED, 0));
            // A training's parent is `sweep-run`, whose parent is Ray's worker.
            let other = scope.spawn(|| self.kill("ray", EVICTED, 2));
            [one, other].map(|thread| thread.join().unwrap_or_else(|_| bail!("the killer panicked")))
        });
        let output = sweep.wait_with_output().context("cannot wait for host-train")?;
        let killed = killed.into_iter().collect::<Result<Vec<()>>>();
        killed.with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        report(&output)?;
        self.same("ray")?;
        ensure!(
            trainings(&format!("ray/{}", RUNS[EVICTED])).is_empty(),
            "a training outlived its worker and its sweep"
        );
        Ok("a killed training and a killed worker were resumed".into())
    }

    fn slurm(&self) -> Result<String> {
        tools::ensure_slurm()?;
        let cluster = Cluster::start()?;
        let go = |words: &[&str]| -> Result<Output> {
            let words = [&["--engine", "slurm", "--retries", "1"], words].concat();
            let mut sweep = self.sweep("slurm", &words);
            sweep.env("SLURM_CONF", cluster.file("slurm.conf")).output().context("cannot start host-train")
        };
        let submitted = report(&go(&[])?)?;
        let job = submitted["jobs"][0].as_str().with_context(|| format!("no job was submitted: {submitted}"))?;
        let first = thread::scope(|scope| {
            let one = scope.spawn(|| self.kill("slurm", KILLED, 0));
            let other = scope.spawn(|| {
                self.training("slurm", EVICTED)?;
                let mut cancel = Command::new("scancel");
                cancel.arg(format!("{job}_{EVICTED}")).env("SLURM_CONF", cluster.file("slurm.conf"));
                ensure!(cancel.status().context("cannot start scancel")?.success(), "the task is not cancelled");
                Ok(())
            });
            let output = go(&["--wait"])?;
            for thread in [one, other] {
                thread
                    .join()
                    .unwrap_or_else(|_| bail!("the killer panicked"))
                    .with_context(|| cluster.said(&output))?;
            }
            Ok::<_, anyhow::Error>(output)
        })?;
        // What was cancelled saved its state, and is not queued again by anybody but the same command.
        let log = self.folder.join("slurm").join(RUNS[EVICTED]).with_extension("log");
        let log = fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
        ensure!(log.contains("stopped at"), "the cancelled training did not stop in good order:\n{log}");
        let said = String::from_utf8_lossy(&first.stderr).into_owned();
        ensure!(
            said.contains("queued already") && said.contains("1 of 4 runs failed") && said.contains(RUNS[EVICTED]),
            "{}",
            cluster.said(&first)
        );
        report(&go(&["--wait"])?).with_context(|| cluster.said(&first))?;
        self.same("slurm")?;
        Ok("a killed training was queued again by Slurm, a cancelled task by the same command".into())
    }

    /// Kills, without a chance to save, the training of a run, or an ancestor of it, once it has a checkpoint.
    fn kill(&self, out: &str, run: usize, ancestor: usize) -> Result<()> {
        let mut process = self.training(out, run)?;
        for _ in 0..ancestor {
            process = parent(process)?;
        }
        let status = Command::new("kill").args(["-KILL", &process.to_string()]).status()?;
        ensure!(status.success(), "{}: process {process} cannot be killed", RUNS[run]);
        Ok(())
    }

    /// Waits until a run has a checkpoint; the process that trains it.
    fn training(&self, out: &str, run: usize) -> Result<u32> {
        let run = RUNS[run];
        let checkpoints = self.folder.join(out).join(run).join("checkpoints");
        let begun = Instant::now();
        loop {
            // Not one that is being written.
            let whole = |entry: fs::DirEntry| !entry.file_name().to_string_lossy().starts_with('.');
            if fs::read_dir(&checkpoints).is_ok_and(|entries| entries.flatten().any(whole))
                && let Some(&training) = trainings(&format!("{out}/{run}")).first()
            {
                return Ok(training);
            }
            ensure!(begun.elapsed() < LIMIT, "{run} had no checkpoint in {} s", LIMIT.as_secs());
            ensure!(
                !self.folder.join(out).join(run).join("evaluation.json").exists(),
                "{run} was finished before it could be killed: make it longer"
            );
            thread::sleep(Duration::from_millis(3));
        }
    }

    /// Holds what an engine left against the local one's.
    fn same(&self, out: &str) -> Result<()> {
        for (i, run) in RUNS.into_iter().enumerate() {
            let (mine, theirs) = (self.folder.join("local").join(run), self.folder.join(out).join(run));
            for name in ["policy.flw", "config.toml"] {
                let read = |folder: &Path| fs::read(folder.join(name)).ok();
                ensure!(read(&mine) == read(&theirs), "{name} of {run} differs");
            }
            ensure!(curve(&mine)? == curve(&theirs)?, "progress.csv of {run} differs");
            ensure!(evaluation(&mine)? == evaluation(&theirs)?, "evaluation.json of {run} differs");
            let said = attempts(&theirs)?;
            let wanted: &[&str] = if [KILLED, EVICTED].contains(&i) { &["train", "resume"] } else { &["train"] };
            ensure!(said == wanted, "{run} was attempted by {}", said.join(", "));
        }
        let (mine, theirs) = (table(&self.folder.join("local"))?, table(&self.folder.join(out))?);
        ensure!(mine == theirs, "the tables differ:\n{}\n{}", mine.join("\n"), theirs.join("\n"));
        ensure!(mine.iter().any(|line| line.contains("| pendulum | sac | 2 |")), "{}", mine.join("\n"));
        let picture = |folder: &str| fs::read(self.folder.join(folder).join("curves.svg")).ok();
        ensure!(picture("local").is_some() && picture("local") == picture(out), "the curves differ");
        Ok(())
    }
}

/// The object that a successful sweep prints.
fn report(output: &Output) -> Result<Value> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "host-train sweep ended with {}:\n{said}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.lines().last().unwrap_or_default()).context("host-train sweep printed no JSON object")
}

/// The commands of a run's attempts, by its log: `train`, `resume`.
fn attempts(run: &Path) -> Result<Vec<String>> {
    let log = run.with_extension("log");
    let text = fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
    let words = text.lines().filter_map(|line| line.strip_prefix("--- host-train ")?.split(' ').next());
    Ok(words.map(String::from).collect())
}

/// `progress.csv` without the column of CPU-seconds.
fn curve(run: &Path) -> Result<Vec<Vec<String>>> {
    let path = run.join("progress.csv");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let header = text.lines().next().unwrap_or_default();
    let place = header.split(',').position(|name| name == "cpu_seconds").context("there is no column cpu_seconds")?;
    let fields = |line: &str| {
        line.split(',').enumerate().filter(|(i, _)| *i != place).map(|(_, field)| field.to_string()).collect()
    };
    Ok(text.lines().map(fields).collect())
}

/// `evaluation.json` without its CPU-seconds.
fn evaluation(run: &Path) -> Result<Value> {
    let path = run.join("evaluation.json");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut value: Value = serde_json::from_str(&text)?;
    let timing = value.as_object_mut().and_then(|object| object.remove("cpu_seconds"));
    ensure!(timing.is_some(), "{} has no cpu_seconds", path.display());
    Ok(value)
}

/// `table.md` without its column of CPU-seconds, which is the last.
fn table(out: &Path) -> Result<Vec<String>> {
    let path = out.join("table.md");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(text.lines().next().is_some_and(|head| head.ends_with("| CPU-seconds a seed |")), "{text}");
    let cut = |line: &str| match line.strip_suffix(" |").and_then(|line| line.rsplit_once(" | ")) {
        Some((rest, _)) => rest.to_string(),
        None => line.to_string(),
    };
    Ok(text.lines().map(cut).collect())
}

/// The processes that train in a folder, as it stands in their command.
fn trainings(folder: &str) -> Vec<u32> {
    let of = |id: &u32| {
        let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words.contains(&folder.as_bytes())
            && [b"train".as_slice(), b"resume"].contains(words.get(1).unwrap_or(&&b""[..]))
    };
    let ids = fs::read_dir("/proc").into_iter().flatten().flatten();
    ids.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok()).filter(of).collect()
}

/// The parent of a process.
fn parent(process: u32) -> Result<u32> {
    let path = format!("/proc/{process}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let id = text.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok());
    id.with_context(|| format!("{path} names no parent"))
}

/// Slurm with one node: this machine.
struct Cluster {
    folder: tempfile::TempDir,
    daemons: Vec<Child>,
}

impl Cluster {
    /// Starts the daemons and waits until the node is there. All are this user's.
    fn start() -> Result<Self> {
        let mut cluster =
            Self { folder: tempfile::tempdir().context("cannot make a temporary folder")?, daemons: Vec::new() };
        let host = fs::read_to_string("/proc/sys/kernel/hostname").context("cannot tell this machine's name")?;
        let host = host.trim().split('.').next().unwrap_or_default().to_string();
        let user = Command::new("id").arg("-un").output().context("cannot tell this user's name")?;
        let user = String::from_utf8_lossy(&user.stdout).trim().to_string();
        let place = cluster.folder.path().display().to_string();
        let cores = thread::available_parallelism().map_or(1, |n| n.get());
        // Two free ports: both listeners live until both are known.
        let listeners = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
        let ports = [listeners[0].local_addr()?.port(), listeners[1].local_addr()?.port()];
        drop(listeners);
        for folder in ["state", "spool"] {
            fs::create_dir(cluster.file(folder))?;
        }
        let mut key = vec![0; 1024];
        std::io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut key)?;
        fs::write(cluster.file("munge.key"), key)?;
        fs::set_permissions(cluster.file("munge.key"), std::os::unix::fs::PermissionsExt::from_mode(0o400))?;
        // Neither cgroups nor systemd nor accounts; a job that asks for it is queued again within seconds.
        let text = format!(
            "ClusterName=flowlet\nSlurmctldHost={host}(127.0.0.1)\nSlurmUser={user}\nSlurmdUser={user}\n\
             SlurmctldPort={}\nSlurmdPort={}\nAuthType=auth/munge\nCredType=cred/munge\n\
             AuthInfo=socket={place}/munge.socket,cred_expire=5\n\
             StateSaveLocation={place}/state\nSlurmdSpoolDir={place}/spool\n\
             SlurmctldPidFile={place}/slurmctld.pid\nSlurmdPidFile={place}/slurmd.pid\n\
             SlurmctldLogFile={place}/slurmctld.log\nSlurmdLogFile={place}/slurmd.log\n\
             ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nJobAcctGatherType=jobacct_gather/none\n\
             AccountingStorageType=accounting_storage/none\nMpiDefault=none\nSwitchType=switch/none\n\
             SelectType=select/cons_tres\nSelectTypeParameters=CR_CPU\nSchedulerType=sched/backfill\n\
             SchedulerParameters=sched_interval=2,bf_interval=2\nSlurmdParameters=config_overrides\nReturnToService=2\n\
             NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN\n\
             PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP\n",
            ports[0], ports[1]
        );
        fs::write(cluster.file("slurm.conf"), text)?;
        let at = |name: &str| format!("{place}/{name}");
        let munge: Vec<String> = ["socket", "key-file", "pid-file", "log-file", "seed-file"]
            .iter()
            .zip(["munge.socket", "munge.key", "munged.pid", "munged.log", "munged.seed"])
            .map(|(option, name)| format!("--{option}={}", at(name)))
            .collect();
        let munge: Vec<&str> =
            ["--foreground", "--force"].into_iter().chain(munge.iter().map(String::as_str)).collect();
        cluster.daemon("munged", &munge)?;
        cluster.until("munged opens no socket", |cluster| cluster.file("munge.socket").exists())?;
        cluster.daemon("slurmctld", &["-D"])?;
        cluster.daemon("slurmd", &["-D", "-N", &host])?;
        cluster.until("the node does not become idle", |cluster| {
            let mut sinfo = Command::new("sinfo");
            let output =
                sinfo.args(["--noheader", "--format=%T"]).env("SLURM_CONF", cluster.file("slurm.conf")).output();
            output.is_ok_and(|output| output.stdout.trim_ascii() == b"idle")
        })?;
        Ok(cluster)
    }

    /// A file of the cluster.
    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn daemon(&mut self, name: &str, words: &[&str]) -> Result<()> {
        let log = fs::File::create(self.file(&format!("{name}.out")))?;
        let mut daemon = Command::new(tools::daemon(name));
        daemon.args(words).env("SLURM_CONF", self.file("slurm.conf")).stdin(Stdio::null());
        daemon.stdout(log.try_clone()?).stderr(log);
        self.daemons.push(daemon.spawn().with_context(|| format!("cannot start {name}"))?);
        Ok(())
    }

    fn until(&self, what: &str, done: impl Fn(&Self) -> bool) -> Result<()> {
        let begun = Instant::now();
        while !done(self) {
            if begun.elapsed() > Duration::from_secs(60) {
                bail!("{what}:\n{}", self.logs());
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// The ends of the daemons' logs.
    fn logs(&self) -> String {
        let mut text = String::new();
        for name in ["munged.out", "slurmctld.log", "slurmd.log", "slurmctld.out", "slurmd.out"] {
            let said = fs::read_to_string(self.file(name)).unwrap_or_default();
            let lines: Vec<&str> = said.lines().collect();
            text += &format!("{name}:\n{}\n", lines[lines.len().saturating_sub(15)..].join("\n"));
        }
        text
    }

    /// What a sweep and the daemons said.
    fn said(&self, output: &Output) -> String {
        format!("{}\n{}", String::from_utf8_lossy(&output.stderr), self.logs())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // In the order of dependence, each with a moment to end by itself.
        for daemon in self.daemons.iter_mut().rev() {
            let _ = Command::new("kill").args(["-TERM", &daemon.id().to_string()]).status();
            let begun = Instant::now();
            while matches!(daemon.try_wait(), Ok(None)) && begun.elapsed() < Duration::from_secs(10) {
                thread::sleep(Duration::from_millis(50));
            }
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_time_is_left_out_of_comparisons() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        at("progress.csv", "timesteps,cpu_seconds,return_mean\n5,0.25,-3\n");
        assert_eq!(curve(dir.path()).unwrap(), [["timesteps", "return_mean"], ["5", "-3"]]);
        at("evaluation.json", "{\"cpu_seconds\":1.5,\"x\":2}");
        assert_eq!(evaluation(dir.path()).unwrap(), serde_json::json!({ "x": 2 }));
        at("table.md", "| a | CPU-seconds a seed |\n| --- | --- |\n| 1 | 2.5 |\n\nwords\n");
        assert_eq!(table(dir.path()).unwrap(), ["| a", "| ---", "| 1", "", "words"]);
        at("table.md", "| a | b |\n");
        assert!(table(dir.path()).is_err());
    }

    #[test]
    fn this_process_has_a_parent_and_trains_nothing() {
        assert!(parent(std::process::id()).unwrap() > 0);
        assert!(parent(u32::MAX).is_err() && trainings("no/such/folder").is_empty());
    }

    #[test]
    fn the_package_is_pinned() {
        let text = fs::read_to_string(crate::root().join("host-train/tests/ray/requirements.txt")).unwrap();
        let packages: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(packages.len() == 1 && packages[0].starts_with("ray=="), "{packages:?}");
    }
}
