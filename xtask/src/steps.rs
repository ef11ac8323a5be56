//! A list of checks, printed one line a check with its time, and the closing line that counts them.
//!
//! Standard output carries the list; what is being worked on goes to standard error. A check that fails does not stop
//! the ones after it. A check passes only by returning `Ok`: there is no way to skip one.

use anyhow::{Context, Result, bail};
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

/// Lines of a failed command's output that are worth showing.
const SHOWN: usize = 80;

/// The checks done so far.
#[derive(Debug, Default)]
pub struct Steps {
    passed: usize,
    failed: Vec<String>,
}

impl Steps {
    /// Does one check: `work` returns a remark for its line, or says what is wrong.
    pub fn step(&mut self, name: &str, work: impl FnOnce() -> Result<String>) {
        eprintln!("... {name}");
        let start = Instant::now();
        let result = work();
        self.record(name, start.elapsed().as_secs_f64(), result);
    }

    /// Does the same check for every item, several at a time; `work` as in [`Steps::step`].
    pub fn parallel<T: Sync>(
        &mut self,
        items: &[T],
        name: impl Fn(&T) -> String + Sync,
        work: impl Fn(&T) -> Result<String> + Sync,
    ) {
        let results = parallel(items, |item| {
            eprintln!("... {}", name(item));
            let start = Instant::now();
            let result = work(item);
            (start.elapsed().as_secs_f64(), result)
        });
        for (item, (seconds, result)) in items.iter().zip(results) {
            self.record(&name(item), seconds, result);
        }
    }

    fn record(&mut self, name: &str, seconds: f64, result: Result<String>) {
        match result {
            Ok(remark) => {
                let separator = if remark.is_empty() { "" } else { ": " };
                println!("ok   {seconds:7.1} s  {name}{separator}{remark}");
                self.passed += 1;
            }
            Err(error) => {
                println!("FAIL {seconds:7.1} s  {name}");
                for line in format!("{error:#}").lines() {
                    println!("    {line}");
                }
                self.failed.push(name.to_string());
            }
        }
    }

    /// Whether a step has failed so far.
    pub fn failed(&self) -> bool {
        !self.failed.is_empty()
    }

    /// Prints what failed and the closing line; the exit code.
    pub fn finish(self) -> u8 {
        for name in &self.failed {
            println!("failed: {name}");
        }
        println!("{} passed, {} failed", self.passed, self.failed.len());
        u8::from(!self.failed.is_empty())
    }
}

/// Applies `work` to every item on as many threads as there are cores; results in the order of the items.
pub fn parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let workers = thread::available_parallelism().map_or(1, |n| n.get()).min(items.len().max(1));
    let next = Mutex::new(0..items.len());
    let results: Mutex<Vec<Option<R>>> = Mutex::new(items.iter().map(|_| None).collect());
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(i) = next.lock().ok().and_then(|mut next| next.next()) {
                    let result = work(&items[i]);
                    if let Ok(mut results) = results.lock() {
                        results[i] = Some(result);
                    }
                }
            });
        }
    });
    // A worker that panicked has already ended the program through the scope: every slot is filled.
    results.into_inner().unwrap_or_default().into_iter().flatten().collect()
}

/// Runs a command to its end; its output when it succeeds, an error that shows the end of it when it fails.
pub fn output_of(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {}", command.get_program().display()))?;
    // Standard output last: a failed test is explained there, a failed compilation on the other.
    let text = [output.stderr, output.stdout].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).join("\n");
    if output.status.success() {
        return Ok(text);
    }
    bail!("{} ended with {}:\n{}", describe(command), output.status, telling(&text))
}

/// What tells why: what tests say of their failures, or else the end.
fn telling(text: &str) -> String {
    let (mut failures, mut within) = (Vec::new(), false);
    for line in text.lines() {
        within |= line == "failures:";
        if within {
            failures.push(line);
        }
        within &= !line.starts_with("test result: ");
    }
    let lines = if failures.is_empty() { text.lines().collect() } else { failures };
    lines[lines.len().saturating_sub(SHOWN)..].join("\n")
}

/// The command as one would type it.
fn describe(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_test_is_told_whatever_ran_after_it() {
        let passed = "running 1 test\ntest b ... ok\n\ntest result: ok. 1 passed\n".repeat(100);
        let failed = "running 1 test\ntest a ... FAILED\n\nfailures:\n\n---- a stdout ----\nwhy\n\nfailures:\n    a\n\ntest result: FAILED. 0 passed\n";
        let told = telling(&format!("{passed}{failed}{passed}"));
        assert!(told.starts_with("failures:") && told.contains("\nwhy\n") && !told.contains("test b"), "{told}");
        assert_eq!(telling("one\ntwo"), "one\ntwo");
    }

    #[test]
    fn failures_are_counted_and_do_not_stop_the_list() {
        let mut steps = Steps::default();
        steps.step("one", || Ok(String::new()));
        steps.step("two", || bail!("no"));
        steps.parallel(
            &[1, 2, 3, 4],
            |n| format!("n {n}"),
            |n| {
                if *n == 3 { bail!("three") } else { Ok("fine".into()) }
            },
        );
        assert_eq!((steps.passed, steps.failed.clone()), (4, vec!["two".to_string(), "n 3".to_string()]));
        assert_eq!(steps.finish(), 1);
    }

    #[test]
    fn parallel_results_keep_their_order() {
        let items: Vec<usize> = (0..50).collect();
        assert_eq!(parallel(&items, |n| n * n), items.iter().map(|n| n * n).collect::<Vec<_>>());
    }

    #[test]
    fn a_failed_command_shows_what_it_said() {
        let error = output_of(Command::new("sh").args(["-c", "echo reason >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("reason") && error.contains("exit status: 3"), "{error}");
        assert_eq!(output_of(Command::new("sh").args(["-c", "echo fine"])).unwrap().trim(), "fine");
    }
}
