//! The engine that submits a sweep to Slurm: a job array, one task a run.
//!
//! The batch script becomes `host-train sweep-run`, which becomes `train` or `resume`, so that Slurm's signals are the
//! training's. A task that fails asks to be queued again, at most so many times, and so does what a node took down; it
//! goes on from the newest checkpoint. Which jobs are whose is in `slurm.json` beside the runs: the same command again
//! submits nothing while they are queued, and waits for them where it is told to. The nodes need this program, the folder
//! of the sweep and what its runs read at the same place.

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
        let folder = plan.root.join(&plan.out);
        let text = fs::read_to_string(folder.join("slurm.json")).ok();
        let known: Submitted = text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        if known.jobs.is_empty() || queue(&known.jobs)?.is_empty() {
            return Ok(None);
        }
        if Plan::read(&folder.join("plan.json"))? != *plan {
            let list = known.jobs.join(" ");
            return Err(Error::usage(format!(
                "the sweep was changed, and its job {list} is still queued: type `scancel {list}` first, or wait for it"
            )));
        }
        Ok(Some(known.jobs))
    }

    /// Writes plan and script; the commands that submit the open runs.
    pub fn write(&self, plan: &Plan, jobs: Option<usize>, retries: u32) -> Result<Vec<Vec<String>>> {
        self.queued(plan)?;
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
        for words in self.write(plan, jobs, retries)? {
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
         run=$((SLURM_ARRAY_TASK_ID + $1))\n\
         {} sweep-run {} \"$run\"\n\
         code=$?\n\
         # 2 is a refusal, which another attempt would meet again.\n\
         if [ $code -ne 0 ] && [ $code -ne 2 ] && [ \"${{SLURM_RESTART_COUNT:-0}}\" -lt {retries} ]; then\n\
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
