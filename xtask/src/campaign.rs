//! Many trainings with the release binary: side by side, resumable, with an estimate of the time that is left.
//!
//! A training has its own run folder. What is finished there (it has `evaluation.json`) is kept, what was broken off is
//! continued by `host-train resume`, what is missing is trained; so a campaign that was stopped goes on where it was by
//! the same command. A training that fails does not stop the others; its output is in `<run folder>.log`. Ctrl-C reaches
//! the trainings too, which save and stop. Progress goes to standard error.

use crate::cargo;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

/// The trainer's binary.
#[derive(Debug, Clone)]
pub struct Trainer {
    root: PathBuf,
    binary: PathBuf,
}

impl Trainer {
    /// Builds it, optimised.
    pub fn build(root: &Path) -> Result<Self> {
        Self::build_with(root, &[])
    }

    /// The same with further words for cargo: features.
    pub fn build_with(root: &Path, words: &[&str]) -> Result<Self> {
        eprintln!("... building host-train");
        let mut build = cargo::cargo(root);
        build.args(["build", "--release", "--package", "host-train", "--bin", "host-train"]).args(words);
        build.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
        let output = build.output().context("cannot start cargo")?;
        if !output.status.success() {
            bail!("host-train does not build");
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let binary = messages.filter_map(|m| m["executable"].as_str().map(PathBuf::from)).next_back();
        Ok(Self { root: root.to_path_buf(), binary: binary.context("cargo did not say where it put host-train")? })
    }

    /// A binary that was built before.
    pub fn at(root: &Path, binary: &Path) -> Self {
        Self { root: root.to_path_buf(), binary: binary.to_path_buf() }
    }

    fn command<S: AsRef<str>>(&self, arguments: &[S]) -> Command {
        let mut command = cargo::command(&self.binary, &self.root);
        command.args(arguments.iter().map(AsRef::as_ref));
        command
    }

    /// Runs `host-train ARGUMENTS --json` and returns the object it prints.
    pub fn json<S: AsRef<str>>(&self, arguments: &[S]) -> Result<Value> {
        let shown = || arguments.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" ");
        let output = self.command(arguments).arg("--json").output().context("cannot start host-train")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("host-train {}: {}", shown(), said.lines().last().unwrap_or("no reason was given"));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let object = text.lines().last().and_then(|line| serde_json::from_str(line).ok());
        object.with_context(|| format!("host-train {} printed no JSON object", shown()))
    }
}

/// One training.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Training {
    /// Its run folder, seen from the root of the repository.
    pub folder: PathBuf,
    /// What it is called; trainings of one name take about the same time.
    pub name: String,
    /// Its seed.
    pub seed: u64,
    /// Arguments of `train`, without seed and folder.
    pub arguments: Vec<String>,
}

/// How far a training is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Trained and evaluated.
    Finished,
    /// Begun.
    Unfinished,
    /// Not begun.
    Missing,
}

impl Training {
    /// What is in its folder.
    pub fn state(&self, root: &Path) -> State {
        let holds = |name: &str| root.join(&self.folder).join(name).is_file();
        if holds("evaluation.json") {
            State::Finished
        } else if holds("config.toml") {
            State::Unfinished
        } else {
            State::Missing
        }
    }

    /// The words of the command that brings it to its end; none when it is there.
    fn command(&self, root: &Path) -> Option<Vec<String>> {
        let folder = self.folder.to_string_lossy().into_owned();
        match self.state(root) {
            State::Finished => None,
            State::Unfinished => Some(vec!["resume".into(), folder]),
            State::Missing => {
                let mut words = vec!["train".to_string()];
                words.extend(self.arguments.iter().cloned());
                words.extend(["--seed".into(), self.seed.to_string(), "--out".into(), folder]);
                Some(words)
            }
        }
    }

    /// CPU-seconds that its training took.
    fn cpu_seconds(&self, root: &Path) -> Option<f64> {
        let text = fs::read_to_string(root.join(&self.folder).join("evaluation.json")).ok()?;
        serde_json::from_str::<Value>(&text).ok()?["cpu_seconds"].as_f64()
    }
}

/// Makes the folder that holds the seeds of one setting and writes the setting into it, or checks that it is the one
/// that is there: runs of different settings must not come to stand for one.
pub fn claim(root: &Path, folder: &Path, arguments: &[String]) -> Result<()> {
    let place = root.join(folder);
    let stamp = place.join("arguments.txt");
    let wanted = arguments.join(" ");
    match fs::read_to_string(&stamp) {
        Ok(found) if found.trim_end() == wanted => Ok(()),
        Ok(found) => bail!(
            "{} holds runs of `train {}`, and `train {wanted}` is wanted: remove it, or give another folder with --out",
            folder.display(),
            found.trim_end()
        ),
        Err(_) => {
            fs::create_dir_all(&place).with_context(|| format!("cannot make the folder {}", place.display()))?;
            fs::write(&stamp, format!("{wanted}\n")).with_context(|| format!("cannot write {}", stamp.display()))
        }
    }
}

/// What is being measured while the trainings run.
struct Clock {
    /// Seconds that finished trainings took, by name.
    taken: BTreeMap<String, Vec<f64>>,
}

impl Clock {
    /// Of finished runs of earlier sessions only the CPU time is known.
    fn of(root: &Path, trainings: &[Training]) -> Self {
        let mut clock = Self { taken: BTreeMap::new() };
        for training in trainings.iter().filter(|training| training.state(root) == State::Finished) {
            if let Some(seconds) = training.cpu_seconds(root) {
                clock.note(&training.name, seconds);
            }
        }
        clock
    }

    fn note(&mut self, name: &str, seconds: f64) {
        self.taken.entry(name.to_string()).or_default().push(seconds);
    }

    /// Seconds for the trainings of these names on so many workers; none before anything was measured.
    fn left<'a>(&self, names: impl Iterator<Item = &'a str>, workers: usize) -> Option<f64> {
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let all: Vec<f64> = self.taken.values().flatten().copied().collect();
        if all.is_empty() {
            return None;
        }
        let total: f64 = names.map(|name| self.taken.get(name).map_or_else(|| mean(&all), |known| mean(known))).sum();
        // The sum of no numbers is -0.
        Some((total + 0.0) / workers as f64)
    }
}

/// A duration for people.
fn told(seconds: Option<f64>) -> String {
    match seconds {
        None => "no estimate before the first is finished".into(),
        Some(s) if s < 90.0 => format!("about {s:.0} s left"),
        Some(s) if s < 5400.0 => format!("about {:.0} min left", s / 60.0),
        Some(s) => format!("about {:.1} h left", s / 3600.0),
    }
}

/// Brings every training to its end, `workers` at a time in the given order. One sentence for each that failed.
pub fn run(trainer: &Trainer, trainings: &[Training], workers: usize) -> Result<Vec<String>> {
    let root = &trainer.root;
    let open: Vec<&Training> = trainings.iter().filter(|t| t.state(root) != State::Finished).collect();
    let begun = open.iter().filter(|t| t.state(root) == State::Unfinished).count();
    let clock = Mutex::new((Clock::of(root, trainings), 0usize));
    let lock = || clock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    eprintln!(
        "{} of {} trainings are finished, {begun} are begun; {}",
        trainings.len() - open.len(),
        trainings.len(),
        told(lock().0.left(open.iter().map(|t| t.name.as_str()), workers))
    );
    let next = Mutex::new(0..open.len());
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..workers.min(open.len()) {
            scope.spawn(|| {
                while let Some(i) = next.lock().ok().and_then(|mut next| next.next()) {
                    let training = open[i];
                    let start = Instant::now();
                    let result = finish(trainer, training);
                    let seconds = start.elapsed().as_secs_f64();
                    let mut state = lock();
                    state.1 += 1;
                    let said = match result {
                        Ok(()) => {
                            state.0.note(&training.name, seconds);
                            format!("{seconds:.0} s")
                        }
                        Err(error) => {
                            let sentence = format!("{}: {error:#}", training.folder.display());
                            if let Ok(mut failures) = failures.lock() {
                                failures.push(sentence);
                            }
                            format!("FAILED, {error:#}")
                        }
                    };
                    let rest = open.iter().skip(state.1).map(|t| t.name.as_str());
                    eprintln!(
                        "{} of {}: {}, seed {}: {said}; {}",
                        state.1,
                        open.len(),
                        training.name,
                        training.seed,
                        told(state.0.left(rest, workers))
                    );
                }
            });
        }
    });
    Ok(failures.into_inner().unwrap_or_default())
}

/// Trains or continues one.
fn finish(trainer: &Trainer, training: &Training) -> Result<()> {
    let Some(words) = training.command(&trainer.root) else { return Ok(()) };
    let folder = trainer.root.join(&training.folder);
    let log = folder.with_extension("log");
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot make the folder {}", parent.display()))?;
    }
    let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let copy = file.try_clone().with_context(|| format!("cannot write {}", log.display()))?;
    let mut child = trainer.command(&words);
    let status = child.stdout(file).stderr(copy).status().context("cannot start host-train")?;
    if status.success() {
        if training.state(&trainer.root) != State::Finished {
            bail!("host-train left no evaluation.json there");
        }
        return Ok(());
    }
    let said = fs::read_to_string(&log).unwrap_or_default();
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no reason was given");
    bail!("{last} ({status}; its output is in {})", log.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn training(name: &str, seed: u64) -> Training {
        let folder = PathBuf::from(format!("runs/{name}/seed-{seed}"));
        Training { folder, name: name.into(), seed, arguments: vec!["--env".into(), "pendulum".into()] }
    }

    #[test]
    fn a_folder_says_what_is_left_to_do() {
        let root = tempfile::tempdir().unwrap();
        let (one, folder) = (training("a", 3), root.path().join("runs/a/seed-3"));
        let words = |t: &Training| t.command(root.path()).map(|words| words.join(" "));
        assert_eq!(words(&one).unwrap(), "train --env pendulum --seed 3 --out runs/a/seed-3");
        fs::create_dir_all(&folder).unwrap();
        assert_eq!(one.state(root.path()), State::Missing);
        fs::write(folder.join("config.toml"), "").unwrap();
        assert_eq!(words(&one).unwrap(), "resume runs/a/seed-3");
        fs::write(folder.join("evaluation.json"), "{\"cpu_seconds\": 4.0}").unwrap();
        assert_eq!((words(&one), one.state(root.path())), (None, State::Finished));
        // Two of four seconds on two workers, and one that was never measured at the mean of all.
        let clock = Clock::of(root.path(), &[one]);
        assert_eq!(clock.left(["a", "a", "b"].into_iter(), 2), Some(6.0));
        assert_eq!(told(clock.left([].into_iter(), 2)), "about 0 s left");
        assert_eq!(Clock::of(root.path(), &[training("b", 1)]).left(["b"].into_iter(), 2), None);
    }

    #[test]
    fn a_folder_belongs_to_one_setting() {
        let root = tempfile::tempdir().unwrap();
        let arguments = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
        let folder = Path::new("runs/a");
        claim(root.path(), folder, &arguments("--env pendulum")).unwrap();
        claim(root.path(), folder, &arguments("--env pendulum")).unwrap();
        let refusal = claim(root.path(), folder, &arguments("--env cartpole")).unwrap_err().to_string();
        assert!(refusal.contains("runs/a holds runs of `train --env pendulum`"), "{refusal}");
    }

    #[test]
    fn trainings_run_side_by_side_and_failures_are_collected() {
        let root = tempfile::tempdir().unwrap();
        // Stands for the trainer: fails for seed 2, writes what a finished run has for the others.
        let script = root.path().join("host-train");
        let text = "#!/bin/sh\n[ \"$5\" = 2 ] && { echo 'error: no such thing' >&2; exit 2; }\n\
                    mkdir -p \"$7\" && echo '{\"cpu_seconds\": 1.0}' > \"$7/evaluation.json\"\n";
        fs::write(&script, text).unwrap();
        let mut permissions = fs::metadata(&script).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
        fs::set_permissions(&script, permissions).unwrap();
        let trainer = Trainer { root: root.path().to_path_buf(), binary: script };
        let all: Vec<Training> = (1..=4).map(|seed| training("a", seed)).collect();
        let failures = run(&trainer, &all, 2).unwrap();
        assert_eq!(failures.len(), 1);
        assert!(failures[0].starts_with("runs/a/seed-2: error: no such thing (exit status: 2"), "{failures:?}");
        let states: Vec<State> = all.iter().map(|t| t.state(root.path())).collect();
        assert_eq!(states, [State::Finished, State::Missing, State::Finished, State::Finished]);
        assert_eq!(run(&trainer, &all[2..], 2).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn times_are_told_in_fitting_units() {
        let texts = [None, Some(30.0), Some(600.0), Some(7200.0)].map(told);
        let wanted =
            ["no estimate before the first is finished", "about 30 s left", "about 10 min left", "about 2.0 h left"];
        assert_eq!(texts, wanted);
    }
}
