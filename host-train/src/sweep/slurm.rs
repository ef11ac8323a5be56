//! The engine that submits a sweep to Slurm: a job array, one task a run.
//!
//! The batch script starts `host-train sweep-run`, which becomes `train` or `resume`. Where Slurm ends a task
//! (cancelled, out of time, preempted) it sends TERM to all of the task's processes: the training saves its state and
//! stops, and the shell waits for it and does not ask for another attempt. A task that fails by itself asks to be
//! queued again, as long as Slurm has restarted it less often than there are retries; what a node took down, or a
//! partition preempts by requeuing, Slurm queues again by itself, which its count of restarts includes. Each goes on
//! from the newest checkpoint. Which jobs are whose is in `slurm.json` beside the runs: the same command again submits
//! nothing while they are queued, and waits for them where it is told to. The nodes need this program, the folder of
//! the sweep and what its runs read at the same place.

use super::attempt::last_words;
use super::watch::Watch;
use super::{Plan, SETTLE, program};
use crate::run::write_atomic;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Tasks of an array: Slurm's own limit is 1001 unless a cluster changes it, and counts the largest number of a task.
const ARRAY: usize = 1000;
/// How long the queue may be unknown before that is a failure: a controller that restarts is back by then.
const PATIENCE: Duration = Duration::from_secs(300);
/// With a limit to what runs at a time, which an array has for itself alone, each array waits for the one before, whose
/// number is known when that is submitted.
pub const AFTER: &str = "--dependency=afterany:JOB";

/// What was submitted, in `slurm.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Submitted {
    /// Numbers of the jobs.
    jobs: Vec<String>,
}

/// How to submit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slurm {
    /// Further options of sbatch.
    pub options: Vec<String>,
}

/// The states of the tasks that are still queued or run.
type Queue = BTreeMap<String, usize>;

impl Slurm {
    /// The jobs of the sweep that are still queued or run; refused where they are of another plan.
    fn queued(&self, plan: &Plan) -> Result<Option<Vec<String>>> {
        let jobs = submitted(plan);
        if jobs.is_empty() || queue(&jobs)?.is_empty() {
            return Ok(None);
        }
        if Plan::read(&plan.root.join(&plan.out).join("plan.json"))? != *plan {
            let list = jobs.join(" ");
            return Err(Error::usage(format!(
                "the sweep was changed, and its job {list} is still queued: type `scancel {list}` first, or wait for it"
            )));
        }
        Ok(Some(jobs))
    }

    /// The jobs that were submitted before, for where Slurm cannot be asked how they are; refused where they are of
    /// another plan, which would be taken from under those that are still queued.
    pub fn earlier(&self, plan: &Plan) -> Result<Vec<String>> {
        let (jobs, folder) = (submitted(plan), plan.root.join(&plan.out));
        if !jobs.is_empty() && !Plan::read(&folder.join("plan.json")).is_ok_and(|earlier| earlier == *plan) {
            let (list, record) = (jobs.join(" "), folder.join("slurm.json"));
            return Err(Error::usage(format!(
                "the sweep was changed, and its job {list} may still be queued: type `scancel {list}` or wait for it, \
                 then remove {}",
                record.display()
            )));
        }
        Ok(jobs)
    }

    /// Writes plan and script; the commands that submit the open runs.
    pub fn write(&self, plan: &Plan, jobs: Option<usize>, retries: u32) -> Result<Vec<Vec<String>>> {
        let folder = plan.root.join(&plan.out);
        let logs = folder.join("slurm");
        fs::create_dir_all(&logs)
            .map_err(|e| Error::failure(format!("cannot make the folder {} ({e})", logs.display())))?;
        let frozen = plan.write("plan.json")?;
        let path = folder.join("sweep.sbatch");
        write_atomic(&path, script(&plan.root, &program()?, &frozen, &logs, retries)?.as_bytes())?;
        let name = plan.out.file_name().map_or("sweep".into(), |name| name.to_string_lossy().into_owned());
        let mut commands = Vec::new();
        let open = plan.open();
        for part in open.chunk_by(|a, b| a / ARRAY == b / ARRAY) {
            let first = part[0] / ARRAY * ARRAY;
            let limit = jobs.map_or(String::new(), |jobs| format!("%{jobs}"));
            let tasks: Vec<usize> = part.iter().map(|run| run - first).collect();
            let mut words = vec!["sbatch".to_string(), "--parsable".into()];
            words.extend([format!("--job-name={name}"), format!("--array={}{limit}", ranges(&tasks))]);
            words.extend((jobs.is_some() && !commands.is_empty()).then(|| AFTER.to_string()));
            words.extend(self.options.iter().cloned());
            words.extend([path.to_string_lossy().into_owned(), first.to_string()]);
            commands.push(words);
        }
        Ok(commands)
    }

    /// Submits the open runs, unless they are queued already; the numbers of the jobs.
    pub fn submit(&self, plan: &Plan, jobs: Option<usize>, retries: u32, watch: &Watch) -> Result<Vec<String>> {
        if let Some(jobs) = self.queued(plan)? {
            watch.note(&format!("job {} is queued already: nothing is submitted", jobs.join(" ")));
            return Ok(jobs);
        }
        let record = plan.root.join(&plan.out).join("slurm.json");
        let mut submitted = Submitted::default();
        for mut words in self.write(plan, jobs, retries)? {
            if let (Some(word), Some(job)) = (words.iter_mut().find(|word| *word == AFTER), submitted.jobs.last()) {
                *word = AFTER.replace("JOB", job);
            }
            let output = ask(&words)?;
            // `--parsable` prints the number, and after a semicolon the cluster's name.
            let job = output.trim().split(';').next().unwrap_or_default().to_string();
            if job.is_empty() || !job.chars().all(|c| c.is_ascii_digit()) {
                return Err(Error::failure(format!("sbatch printed {:?}, which is no number of a job", output.trim())));
            }
            watch.note(&format!("submitted as job {job}"));
            submitted.jobs.push(job);
            // At once: what is submitted is known even if the next is refused.
            let text = serde_json::to_string(&submitted).unwrap_or_default();
            write_atomic(&record, text.as_bytes())?;
        }
        Ok(submitted.jobs)
    }

    /// Waits until nothing of the jobs is queued or runs, and gives up what is not finished then.
    pub fn wait(&self, plan: &Plan, jobs: &[String], stop: &AtomicBool, watch: &Watch) -> Result<()> {
        let mut answered = Instant::now();
        let mut pause = Duration::from_secs(1);
        loop {
            match queue(jobs) {
                Ok(queue) if queue.is_empty() => break,
                Ok(queue) => {
                    answered = Instant::now();
                    let states: Vec<String> = queue.iter().map(|(state, n)| format!("{n} {state}")).collect();
                    watch.aside(format!("Slurm: {}", states.join(", ")));
                }
                Err(error) if answered.elapsed() > PATIENCE => return Err(error),
                Err(_) => {}
            }
            let begun = Instant::now();
            while begun.elapsed() < pause {
                if stop.load(Ordering::SeqCst) {
                    let list = jobs.join(" ");
                    return Err(Error::Interrupted(format!(
                        "not waiting any more; job {list} goes on: `scancel {list}` stops it, and the same command waits \
                         for it again"
                    )));
                }
                sleep(Duration::from_millis(50));
            }
            // Soon for what is short, seldom for what is long: a controller serves many.
            pause = (pause * 5 / 4).min(Duration::from_secs(20));
        }
        let ended = Instant::now();
        while !plan.open().is_empty() && ended.elapsed() < SETTLE {
            sleep(Duration::from_millis(500));
        }
        for run in plan.open() {
            let logs = plan.root.join(&plan.out).join("slurm");
            let unknown = || format!("no task of Slurm began it, see {}", logs.display());
            watch.failed(run, &last_words(&plan.log(run), 0).unwrap_or_else(unknown));
        }
        Ok(())
    }
}

/// The jobs of the last submission.
fn submitted(plan: &Plan) -> Vec<String> {
    let text = fs::read_to_string(plan.root.join(&plan.out).join("slurm.json")).ok();
    let known: Submitted = text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    known.jobs
}

/// What every task runs.
fn script(root: &Path, program: &Path, plan: &Path, logs: &Path, retries: u32) -> Result<String> {
    let [root, program, plan, logs] = [root, program, plan, logs].map(|path| path.to_string_lossy().into_owned());
    // Slurm reads `#SBATCH` lines by rules of its own: what is odd there is left to nobody's luck.
    if [&root, &logs].iter().any(|path| path.contains(['"', '\n', '%', '\\'])) {
        return Err(Error::usage(format!(
            "{root}: Slurm cannot be told of a folder with quotes, backslashes or per cent signs in its path: use another"
        )));
    }
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "'\\''"));
    Ok(format!(
        "#!/bin/sh\n\
         # Written by `host-train sweep`: one task of an array is one run. The argument is the number of the array's first.\n\
         #SBATCH --ntasks=1\n\
         #SBATCH --cpus-per-task=1\n\
         #SBATCH --requeue\n\
         #SBATCH --open-mode=append\n\
         #SBATCH --chdir=\"{root}\"\n\
         #SBATCH --output=\"{logs}/%A_%a.log\"\n\
         # Slurm sends TERM to the training too, which saves its state: wait for it. A second would end it at once.\n\
         stopped=no\n\
         trap 'stopped=yes' TERM\n\
         run=$((SLURM_ARRAY_TASK_ID + $1))\n\
         {} sweep-run {} \"$run\"\n\
         code=$?\n\
         # 2 is a refusal, which another attempt would meet again.\n\
         if [ $stopped = no ] && [ $code -ne 0 ] && [ $code -ne 2 ] \\\n\
         \x20   && [ \"${{SLURM_RESTART_COUNT:-0}}\" -lt {retries} ]; then\n\
         \x20   echo \"run $run ended with $code: it is queued again\"\n\
         \x20   scontrol requeue \"$SLURM_JOB_ID\"\n\
         fi\n\
         exit $code\n",
        quoted(&program),
        quoted(&plan)
    ))
}

/// `0-3,7` for sorted numbers.
fn ranges(numbers: &[usize]) -> String {
    let range = |part: &[usize]| match part {
        [first, .., last] => format!("{first}-{last}"),
        rest => rest.iter().map(usize::to_string).collect(),
    };
    numbers.chunk_by(|a, b| a + 1 == *b).map(range).collect::<Vec<_>>().join(",")
}

/// How many tasks of the jobs are in which state, of those that are not over.
fn queue(jobs: &[String]) -> Result<Queue> {
    let mut queue = Queue::new();
    for job in jobs {
        let words = ["squeue", "--noheader", "--array", "--format=%T %r", "--job", job].map(String::from);
        match ask(&words) {
            Ok(text) => {
                for line in text.lines().filter(|line| !line.trim().is_empty()) {
                    *queue.entry(state(line)).or_default() += 1;
                }
            }
            // What ended some minutes ago is forgotten.
            Err(error) if error.to_string().contains("Invalid job id") => {}
            Err(error) => return Err(error),
        }
    }
    Ok(queue)
}

/// `pending (Resources)` of `PENDING Resources`.
fn state(line: &str) -> String {
    let (state, reason) = line.trim().split_once(' ').unwrap_or((line.trim(), "None"));
    let state = state.to_lowercase();
    if matches!(reason.trim(), "None" | "") { state } else { format!("{state} ({})", reason.trim()) }
}

/// Runs one of Slurm's commands; what it prints.
fn ask(words: &[String]) -> Result<String> {
    let output = Command::new(&words[0]).args(&words[1..]).stdin(Stdio::null()).output().map_err(|e| {
        Error::usage(format!(
            "cannot start {} ({e}): install Slurm's client commands (`apt-get install slurm-client`) on a machine of the \
             cluster, or write the script alone with --dry-run",
            words[0]
        ))
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no reason was given").trim();
    Err(Error::failure(format!("{} refused: {last}", words[0])))
}

/// Where the script lies.
pub fn script_path(plan: &Plan) -> PathBuf {
    plan.root.join(&plan.out).join("sweep.sbatch")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{plan, put};
    use super::*;

    #[test]
    fn arrays_name_the_open_runs() {
        let root = tempfile::tempdir().unwrap();
        let plan = plan(root.path(), &["a", "b", "c"], &[1, 2]);
        for run in [1, 4] {
            put(&plan, run, "evaluation.json", "{}");
        }
        fs::create_dir_all(root.path().join("runs/s")).unwrap();
        let slurm = Slurm { options: vec!["--partition=short".into()] };
        let commands = slurm.write(&plan, Some(2), 3).unwrap();
        let path = script_path(&plan).to_string_lossy().into_owned();
        let wanted = format!("sbatch --parsable --job-name=s --array=0,2-3,5%2 --partition=short {path} 0");
        assert_eq!(commands.iter().map(|words| words.join(" ")).collect::<Vec<_>>(), [wanted]);
        let text = fs::read_to_string(path).unwrap();
        for line in [
            &format!("#SBATCH --chdir=\"{}\"", root.path().display()),
            "sweep-run",
            "runs/s/plan.json' \"$run\"",
            "-lt 3 ]",
            "    scontrol requeue",
        ] {
            assert!(text.contains(line), "{line} is not in:\n{text}");
        }
        assert_eq!(Plan::read(&root.path().join("runs/s/plan.json")).unwrap(), plan);
    }

    #[test]
    fn a_thousand_runs_are_an_array() {
        let root = tempfile::tempdir().unwrap();
        let seeds: Vec<u64> = (1..=2001).collect();
        let plan = plan(root.path(), &["a"], &seeds);
        put(&plan, 1003, "evaluation.json", "{}");
        fs::create_dir_all(root.path().join("runs/s")).unwrap();
        let commands = Slurm::default().write(&plan, None, 0).unwrap();
        let arrays: Vec<_> = commands.iter().map(|words| (words[3].as_str(), words[5].as_str())).collect();
        assert_eq!(arrays, [("--array=0-999", "0"), ("--array=0-2,4-999", "1000"), ("--array=0", "2000")]);
        // A limit is each array's own, so they come one after another.
        let commands = Slurm::default().write(&plan, Some(7), 0).unwrap();
        let after: Vec<_> = commands.iter().map(|words| words.iter().any(|word| word == AFTER)).collect();
        assert_eq!(after, [false, true, true]);
        assert_eq!(commands[2][3..5], ["--array=0%7", AFTER]);
    }

    /// Slurm is not asked: it may be on another machine.
    #[test]
    fn jobs_of_an_earlier_submission_are_told() {
        let root = tempfile::tempdir().unwrap();
        let mut plan = plan(root.path(), &["a"], &[1, 2]);
        fs::create_dir_all(root.path().join("runs/s")).unwrap();
        let slurm = Slurm::default();
        assert_eq!(slurm.earlier(&plan).unwrap(), Vec::<String>::new());
        slurm.write(&plan, None, 1).unwrap();
        fs::write(root.path().join("runs/s/slurm.json"), "{\"jobs\":[\"7\",\"8\"]}").unwrap();
        assert_eq!(slurm.earlier(&plan).unwrap(), ["7", "8"]);
        plan.runs.pop();
        let refusal = slurm.earlier(&plan).unwrap_err();
        let sentence = refusal.to_string();
        assert!(refusal.exit_code() == 2 && sentence.contains("7 8") && sentence.contains("slurm.json"), "{sentence}");
    }

    /// A task that Slurm stops: TERM goes to all of its processes. The shell waits until the training has saved, and
    /// does not ask for another attempt; without the signal it does.
    #[cfg(unix)]
    #[test]
    fn what_slurm_stops_saves_and_is_not_queued_again() {
        use nix::sys::signal::{Signal, killpg};
        use std::os::unix::fs::PermissionsExt;
        use std::os::unix::process::CommandExt;
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let executable = |name: &str, text: &str| {
            fs::write(at(name), format!("#!/bin/sh\n{text}\n")).unwrap();
            fs::set_permissions(at(name), fs::Permissions::from_mode(0o755)).unwrap();
        };
        let trainer = "trap 'sleep 0.3; : > saved; exit 130' TERM\n: > begun\n\
                       [ \"$3\" = 12 ] && exit 1\n[ \"$3\" = 13 ] && exit 2\nwhile :; do sleep 0.01; done";
        executable("trainer", trainer);
        executable("scontrol", "echo \"$*\" > asked");
        executable("batch", &script(root.path(), &at("trainer"), Path::new("p"), &at("l"), 2).unwrap());
        let task = |number: &str, restarts: &str, stop: bool| {
            for name in ["begun", "saved", "asked"] {
                let _ = fs::remove_file(at(name));
            }
            let path = format!("{}:{}", root.path().display(), std::env::var("PATH").unwrap());
            let mut command = Command::new(at("batch"));
            command.arg("10").current_dir(root.path()).env("PATH", path).stdout(Stdio::null()).process_group(0);
            command.env("SLURM_ARRAY_TASK_ID", number).env("SLURM_RESTART_COUNT", restarts).env("SLURM_JOB_ID", "42");
            let mut child = command.spawn().unwrap();
            if stop {
                while !at("begun").exists() {
                    sleep(Duration::from_millis(5));
                }
                killpg(nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
            }
            let code = child.wait().unwrap().code();
            (code, at("saved").exists(), fs::read_to_string(at("asked")).ok())
        };
        assert_eq!(task("1", "0", true), (Some(130), true, None));
        assert_eq!(task("2", "1", false), (Some(1), false, Some("requeue 42\n".into())));
        assert_eq!(task("2", "2", false), (Some(1), false, None));
        assert_eq!(task("3", "0", false), (Some(2), false, None));
    }

    #[test]
    fn odd_paths_are_quoted_or_refused() {
        let of = |root: &str| script(Path::new(root), Path::new("/a b/it's"), Path::new("p"), Path::new("l"), 1);
        assert!(of("/x y").unwrap().contains("'/a b/it'\\''s' sweep-run 'p'"));
        assert_eq!(of("/100%").unwrap_err().exit_code(), 2);
    }

    #[test]
    fn ranges_and_states_are_read() {
        assert_eq!(ranges(&[0]), "0");
        assert_eq!(ranges(&[0, 1, 3, 5, 6, 7]), "0-1,3,5-7");
        assert_eq!(state("RUNNING None"), "running");
        assert_eq!(state("PENDING launch failed requeued held"), "pending (launch failed requeued held)");
    }

    #[test]
    fn missing_commands_are_told_how_to_get_them() {
        let sentence = ask(&["/nowhere/sbatch".into()]).unwrap_err();
        assert!(sentence.exit_code() == 2 && sentence.to_string().contains("slurm-client"), "{sentence}");
        let sentence = ask(&["sh".into(), "-c".into(), "echo why >&2; exit 1".into()]).unwrap_err().to_string();
        assert_eq!(sentence, "sh refused: why");
    }
}
