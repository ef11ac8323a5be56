//! The engine that runs a sweep here: a number of runs side by side, each in a process of its own.
//!
//! A run that fails is tried again, at most so many times, and does not stop the others; a command that is refused is not
//! tried again. A stop reaches every training once: each saves its state, and the same sweep goes on from there.

use super::Plan;
use super::attempt::{Ended, attempt};
use super::watch::Watch;
use crate::{Error, Result};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Brings the open runs to their ends with `program`, the trainer.
pub fn run(plan: &Plan, program: &Path, jobs: usize, retries: u32, stop: &AtomicBool, watch: &Watch) -> Result<()> {
    let open = plan.open();
    let next = Mutex::new(open.iter());
    thread::scope(|scope| {
        for _ in 0..jobs.min(open.len()) {
            scope.spawn(|| {
                while let Some(&run) = next.lock().ok().and_then(|mut next| next.next()) {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    one(plan, run, program, retries, stop, watch);
                }
            });
        }
    });
    if stop.load(Ordering::SeqCst) && !plan.open().is_empty() {
        return Err(Error::Interrupted("stopped in good order: type the same command to go on".into()));
    }
    Ok(())
}

/// Attempts at one run.
fn one(plan: &Plan, run: usize, program: &Path, retries: u32, stop: &AtomicBool, watch: &Watch) {
    for left in (0..=retries).rev() {
        match attempt(plan, run, program, stop) {
            Ended::Finished | Ended::Stopped => return,
            Ended::Failed(sentence) if left > 0 => {
                watch.note(&format!("{}: {sentence}; it is tried again", plan.name(run)));
            }
            Ended::Failed(sentence) | Ended::Refused(sentence) => return watch.failed(run, &sentence),
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::super::tests::plan;
    use super::super::{State, attempt::last_words};
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    /// Stands for the trainer: a shell script with the words of `train` as $1 to $7, the last the folder.
    fn trainer(root: &Path, script: &str) -> PathBuf {
        let path = root.join("trainer");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn go(plan: &Plan, program: &Path, retries: u32) -> Vec<String> {
        let watch = Watch::new(plan, &|_| ());
        run(plan, program, 2, retries, &AtomicBool::new(false), &watch).unwrap();
        watch.failures().into_iter().map(|failure| failure.sentence).collect()
    }

    #[test]
    fn failures_are_collected_and_what_is_finished_is_kept() {
        let root = tempfile::tempdir().unwrap();
        let script = "[ \"$5\" = 2 ] && { echo 'error: no such thing' >&2; exit 1; }\n\
                      [ \"$5\" = 3 ] && { echo 'error: nonsense' >&2; exit 2; }\n\
                      mkdir -p \"$7\" && echo '{}' > \"$7/evaluation.json\"";
        let program = trainer(root.path(), script);
        let plan = plan(root.path(), &["a"], &[1, 2, 3, 4]);
        let mut failures = go(&plan, &program, 1);
        failures.sort();
        assert!(failures[0].starts_with("runs/s/a/seed-2: no such thing (exit status: 1"), "{failures:?}");
        assert!(failures[1].starts_with("runs/s/a/seed-3: nonsense (exit status: 2"), "{failures:?}");
        assert_eq!(failures.len(), 2);
        let states: Vec<State> = (0..4).map(|run| plan.state(run)).collect();
        assert_eq!(states, [State::Finished, State::Missing, State::Missing, State::Finished]);
        // Twice, and once: what is refused would be refused again.
        let attempts = |run: usize| fs::read_to_string(plan.log(run)).unwrap().matches("--- host-train train").count();
        assert_eq!([0, 1, 2].map(attempts), [1, 2, 1]);
        go(&plan, &program, 0);
        assert_eq!([0, 1, 2].map(attempts), [1, 3, 2]);
    }

    #[test]
    fn an_attempt_that_dies_is_resumed() {
        let root = tempfile::tempdir().unwrap();
        let script = "if [ \"$1\" = train ]; then mkdir -p \"$7\"; : > \"$7/config.toml\"; kill -9 $$; fi\n\
                      [ \"$1\" = resume ] && : > \"$2/evaluation.json\"";
        let program = trainer(root.path(), script);
        let plan = plan(root.path(), &["a"], &[1]);
        assert_eq!(go(&plan, &program, 2), Vec::<String>::new());
        let log = fs::read_to_string(plan.log(0)).unwrap();
        assert!(log.contains("--- host-train train --env pendulum --seed 1 --out runs/s/a/seed-1\n"), "{log}");
        assert!(log.ends_with("--- host-train resume runs/s/a/seed-1\n"), "{log}");
    }

    #[test]
    fn a_success_without_a_result_is_a_failure() {
        let root = tempfile::tempdir().unwrap();
        let plan = plan(root.path(), &["a"], &[1]);
        let failures = go(&plan, &trainer(root.path(), "exit 0"), 0);
        assert!(failures[0].contains("no evaluation.json"), "{failures:?}");
        let failures = go(&plan, Path::new("/nowhere"), 0);
        assert!(failures[0].contains("cannot start host-train"), "{failures:?}");
    }

    #[test]
    fn a_stop_is_passed_on_once_and_begins_nothing() {
        let root = tempfile::tempdir().unwrap();
        // Ends in good order at the first signal; the next would be too many.
        let script = "trap 'trap - TERM; echo stopped; exit 130' TERM\nmkdir -p \"$7\"; : > \"$7/config.toml\"\n\
                      while :; do sleep 0.01; done";
        let program = trainer(root.path(), script);
        let plan = plan(root.path(), &["a"], &[1, 2]);
        let stop = AtomicBool::new(false);
        let watch = Watch::new(&plan, &|_| ());
        let ended = thread::scope(|scope| {
            let ended = scope.spawn(|| run(&plan, &program, 1, 5, &stop, &watch));
            while plan.state(0) == State::Missing {
                thread::sleep(std::time::Duration::from_millis(5));
            }
            stop.store(true, Ordering::SeqCst);
            ended.join().unwrap()
        });
        assert_eq!(ended.unwrap_err().exit_code(), 130);
        assert!(watch.failures().is_empty() && plan.state(1) == State::Missing);
        assert_eq!(last_words(&plan.log(0), 0).unwrap(), "stopped");
    }

    /// What another process trains is waited for, and not trained twice.
    #[test]
    fn a_run_that_another_process_has_is_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let plan = plan(root.path(), &["a"], &[1]);
        fs::create_dir_all(plan.folder(0)).unwrap();
        let held = fs::File::open(plan.folder(0)).unwrap();
        held.lock().unwrap();
        thread::scope(|scope| {
            let failures = scope.spawn(|| go(&plan, Path::new("/nowhere"), 0));
            thread::sleep(std::time::Duration::from_millis(100));
            assert!(!failures.is_finished());
            fs::write(plan.folder(0).join("evaluation.json"), "{}").unwrap();
            drop(held);
            assert!(failures.join().unwrap().is_empty());
        });
    }
}
