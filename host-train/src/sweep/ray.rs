//! The engine that hands a sweep to a Ray cluster.
//!
//! `ray_driver.py`, which is part of this binary, runs under the Python that has Ray (`--python`, `FLOWLET_PYTHON`, else
//! `python3`), connects, and submits one task a run. A task is this program's `sweep-run --guarded`, which trains or
//! resumes as the folder says. Ray retries what fails. The machines of the cluster need this program, the folder of the
//! sweep and what its runs read at the same place: a file system that they share. What Ray says itself is in `ray.log`
//! beside the runs.

use super::attempt::{apart, last_words, wait};
use super::watch::Watch;
use super::{Plan, SETTLE, State, program};
use crate::{Error, Result};
use serde::Deserialize;
use serde_json::json;
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const SCRIPT: &str = include_str!("ray_driver.py");

/// The environment variables that name the interpreter and the cluster.
const PYTHON: &str = "FLOWLET_PYTHON";
const ADDRESS: &str = "RAY_ADDRESS";

/// Where and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ray {
    /// The cluster; `local` starts one here for as long as the sweep takes.
    pub address: String,
    /// The interpreter.
    pub python: OsString,
}

/// What the driver tells of a run that is over.
#[derive(Deserialize)]
struct Over {
    run: usize,
    code: i32,
    said: String,
}

impl Ray {
    /// By the options, else by the environment.
    pub fn new(address: Option<&str>, python: Option<&str>) -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let address = address.map(str::to_string).or_else(|| set(ADDRESS)?.into_string().ok());
        let python = python.map(OsString::from).or_else(|| set(PYTHON));
        Self { address: address.unwrap_or_else(|| "local".into()), python: python.unwrap_or_else(|| "python3".into()) }
    }

    /// Refuses an interpreter that is none, or has no Ray.
    pub fn check(&self) -> Result<()> {
        let shown = self.python.display();
        let probe = Command::new(&self.python)
            .args(["-c", "import importlib.util, sys; sys.exit(importlib.util.find_spec('ray') is None)"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        match probe {
            Err(e) => Err(Error::usage(format!(
                "cannot start {shown} ({e}): install Python 3, or name the one that has Ray with --python"
            ))),
            Ok(status) if !status.success() => Err(Error::usage(format!(
                "{shown} has no Ray: type `{shown} -m pip install ray`, or name the Python that has it with --python"
            ))),
            Ok(_) => Ok(()),
        }
    }

    /// Brings the open runs to their ends, at most `jobs` at a time where that is given.
    pub fn run(&self, plan: &Plan, jobs: Option<usize>, retries: u32, stop: &AtomicBool, watch: &Watch) -> Result<()> {
        self.check()?;
        let frozen = plan.write("ray.json")?;
        let log = plan.root.join(&plan.out).join("ray.log");
        let said = File::create(&log).map_err(|e| {
            Error::failure(format!("cannot write {} ({e}): choose another folder with --out", log.display()))
        })?;
        let request = json!({
            "address": self.address,
            "jobs": jobs,
            "retries": retries,
            "command": [json!(program()?), json!("sweep-run"), json!("--guarded"), json!(frozen)],
            "folder": plan.root,
            "runs": plan.open(),
        });
        let mut driver = Command::new(&self.python);
        driver.args(["-c", SCRIPT]).current_dir(&plan.root);
        driver.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(said);
        let failed = |e: std::io::Error| Error::failure(format!("cannot run {} ({e})", self.python.display()));
        let mut driver = apart(&mut driver).spawn().map_err(failed)?;
        let (input, output) = (driver.stdin.take(), driver.stdout.take());
        // It is kept open: its end is what stops the driver if this process is killed.
        let mut input = input.ok_or_else(|| failed(std::io::ErrorKind::BrokenPipe.into()))?;
        // A driver that has died already says so by its exit code.
        let _ = writeln!(input, "{request}");
        let status = thread::scope(|scope| {
            scope.spawn(move || {
                let lines = output.into_iter().flat_map(|output| BufReader::new(output).lines());
                for over in lines.map_while(std::io::Result::ok).filter_map(|line| serde_json::from_str(&line).ok()) {
                    // Each by itself: one may have to wait for the file system, and the rest is not to wait with it.
                    scope.spawn(move || judge(plan, &over, watch, SETTLE));
                }
            });
            wait(&mut driver, stop)
        });
        drop(input);
        let status = status.map_err(failed)?;
        if stop.load(Ordering::SeqCst) && !plan.open().is_empty() {
            return Err(Error::Interrupted(
                "stopped; what the workers train saves its state and stops: type the same command to go on".into(),
            ));
        }
        if !status.success() {
            let said = last_words(&log, 0).unwrap_or_else(|| "no reason was given".into());
            return Err(Error::failure(format!(
                "Ray at {}: {said} ({status}; all it said is in {})",
                self.address,
                log.display()
            )));
        }
        Ok(())
    }
}

/// Hears of a run that is over; what is finished may take so long to be seen here.
fn judge(plan: &Plan, over: &Over, watch: &Watch, settle: Duration) {
    if over.run >= plan.runs.len() {
        return;
    }
    let heard = Instant::now();
    while plan.state(over.run) != State::Finished && over.code == 0 && heard.elapsed() < settle {
        thread::sleep(settle / 20);
    }
    if plan.state(over.run) == State::Finished {
        return;
    }
    match over.code {
        0 => watch.failed(
            over.run,
            "a worker finished it and it is not here: the machines of the cluster need one file system, at one place",
        ),
        _ => watch.failed(over.run, &over.said),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{plan, put};
    use super::*;

    #[test]
    fn options_come_before_the_environment() {
        let ray = Ray::new(Some("10.0.0.1:6379"), Some("/opt/python"));
        assert_eq!((ray.address.as_str(), ray.python.to_str()), ("10.0.0.1:6379", Some("/opt/python")));
    }

    #[test]
    fn a_python_without_ray_is_told_how_to_get_it() {
        let missing = Ray { address: "local".into(), python: "/nowhere/python".into() };
        let sentence = missing.check().unwrap_err();
        assert!(sentence.exit_code() == 2 && sentence.to_string().contains("install Python 3"), "{sentence}");
        // Something that is there and says no to every question.
        let without = Ray { python: "false".into(), ..missing };
        let sentence = without.check().unwrap_err().to_string();
        assert!(sentence.contains("false -m pip install ray"), "{sentence}");
    }

    #[test]
    fn what_is_over_and_not_here_has_failed() {
        let root = tempfile::tempdir().unwrap();
        let plan = plan(root.path(), &["a"], &[1, 2, 3]);
        let watch = Watch::new(&plan, &|_| ());
        put(&plan, 0, "evaluation.json", "{}");
        for (run, code) in [(0, 0), (1, 0), (2, 1), (9, 1)] {
            judge(&plan, &Over { run, code, said: "it died".into() }, &watch, Duration::ZERO);
        }
        let failures: Vec<_> = watch.failures().into_iter().map(|f| (f.run, f.sentence)).collect();
        assert_eq!(failures.len(), 2);
        assert!(failures[0].0 == 1 && failures[0].1.contains("one file system"), "{failures:?}");
        assert!(failures[1].0 == 2 && failures[1].1.ends_with("it died"), "{failures:?}");
        // A file that is seen late.
        thread::scope(|scope| {
            scope.spawn(|| judge(&plan, &Over { run: 1, code: 0, said: String::new() }, &watch, SETTLE));
            thread::sleep(Duration::from_millis(50));
            put(&plan, 1, "evaluation.json", "{}");
        });
        assert_eq!(watch.failures().len(), 2);
    }
}
