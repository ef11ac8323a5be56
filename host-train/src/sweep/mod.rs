//! A sweep: a list of independent runs, brought to their ends side by side, here or on other machines.
//!
//! [`mod@file`] reads what is asked for; a [`Plan`] is the list of runs. A run has its own folder, which alone says how far it
//! is: what is finished (it has `evaluation.json`) is kept, what is begun is resumed, what is missing is trained. So the
//! same sweep again goes on where it was, on whatever engine, and an attempt that fails is tried again by the same rule.
//! [`attempt`] is one attempt at one run, in a process of its own; [`local`], [`ray`] and [`slurm`] decide where and when;
//! [`watch`] tells how far all of them are, from the folders alone. What a run's process says is in `<run folder>.log`.
//! Trainings are deterministic, so what comes out does not depend on the engine, on its order or on broken attempts.

pub mod attempt;
pub mod file;
pub mod local;
pub mod ray;
pub mod slurm;
pub mod watch;

use crate::config::{Config, WITHOUT_EFFECT, flatten};
use crate::run::write_atomic;
use crate::{Error, Result};
use file::{Setting, Sweep};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::{Table, Value};

/// What another machine wrote last may take so long to be seen here.
const SETTLE: Duration = Duration::from_secs(10);

/// The runs of a sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The folder from which the runs' folders and the files among their arguments are seen.
    pub root: PathBuf,
    /// The folder of the sweep, seen from there.
    pub out: PathBuf,
    /// Its runs, all settings of a seed before the next seed: stopped at any time, what is there is a table of fewer seeds.
    pub runs: Vec<Run>,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its folder, seen from the root.
    pub folder: PathBuf,
    /// The setting's name.
    pub setting: String,
    /// Its seed.
    pub seed: u64,
    /// Control steps that it takes.
    pub steps: u64,
    /// The setting's arguments of `train`, without seed and folder.
    pub arguments: Vec<String>,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Trained and evaluated.
    Finished,
    /// Begun.
    Begun,
    /// Not begun.
    Missing,
}

/// Why a run is not finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its place in the plan.
    pub run: usize,
    /// What it said last.
    pub sentence: String,
}

impl Plan {
    /// The runs of a sweep in the folder `out`, seen from `root`; `resolve` is how `train` would read a setting's arguments,
    /// so that what it would refuse is refused before any run begins.
    pub fn new(root: &Path, out: &Path, sweep: &Sweep, resolve: impl Fn(&[String]) -> Result<Config>) -> Result<Self> {
        let steps_of = |setting: &Setting| match resolve(&setting.arguments) {
            Ok(config) => Ok(config.total_timesteps),
            Err(Error::Usage(sentence)) => Err(Error::usage(format!("setting {}: {sentence}", setting.name))),
            Err(other) => Err(other),
        };
        let steps = sweep.settings.iter().map(steps_of).collect::<Result<Vec<_>>>()?;
        let run = |seed: u64, setting: &Setting, steps: u64| Run {
            folder: out.join(&setting.name).join(format!("seed-{seed}")),
            setting: setting.name.clone(),
            seed,
            steps,
            arguments: setting.arguments.clone(),
        };
        let of_seed = |&seed: &u64| sweep.settings.iter().zip(&steps).map(move |(s, &steps)| run(seed, s, steps));
        let runs = sweep.seeds.iter().flat_map(of_seed).collect();
        Ok(Self { root: root.to_path_buf(), out: out.to_path_buf(), runs })
    }

    /// Makes the folders of the settings and writes into each what it is, or checks that it is the one that is there:
    /// runs of different settings must not come to stand for one. What is there must also have the configuration that
    /// `resolve` makes of the arguments now: the constants behind the same words change.
    pub fn claim(&self, resolve: impl Fn(&[String]) -> Result<Config>) -> Result<()> {
        let mut configs: BTreeMap<&str, Config> = BTreeMap::new();
        for (number, run) in self.runs.iter().enumerate() {
            self.stamp(run)?;
            if self.state(number) == State::Missing {
                continue;
            }
            let config = match configs.entry(run.setting.as_str()) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(resolve(&run.arguments)?),
            };
            config.seed = run.seed;
            let folder = self.folder(number);
            let found = Config::complete(&folder.join("config.toml"), None)?;
            if let Some(key) = differs(&found, config) {
                return Err(Error::usage(format!(
                    "{key} in {} is not what its arguments mean now: remove that folder, or give another with --out",
                    folder.join("config.toml").display()
                )));
            }
        }
        Ok(())
    }

    /// Writes what the folder of a run's setting is, or checks it.
    fn stamp(&self, run: &Run) -> Result<()> {
        let folder = self.root.join(run.folder.parent().unwrap_or(&self.out));
        let (stamp, wanted) = (folder.join("arguments.txt"), run.arguments.join(" "));
        match fs::read_to_string(&stamp) {
            Ok(found) if found.trim_end() == wanted => Ok(()),
            Ok(found) => Err(Error::usage(format!(
                "{} holds runs of `train {}`, and `train {wanted}` is wanted: remove it, or give another folder \
                 with --out",
                folder.display(),
                found.trim_end()
            ))),
            Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::failure(format!(
                "cannot read {} ({e}), which says whose runs are there: make it readable, or give another folder \
                 with --out",
                stamp.display()
            ))),
            Err(_) if holds_runs(&folder) => Err(Error::usage(format!(
                "{} holds runs and no arguments.txt that says whose: remove it, or give another folder with --out",
                folder.display()
            ))),
            Err(_) => {
                fs::create_dir_all(&folder).map_err(|e| {
                    Error::failure(format!(
                        "cannot make the folder {} ({e}): choose another with --out",
                        folder.display()
                    ))
                })?;
                write_atomic(&stamp, format!("{wanted}\n").as_bytes())
            }
        }
    }

    /// The folder of a run, whatever the working directory is.
    pub fn folder(&self, run: usize) -> PathBuf {
        self.root.join(&self.runs[run].folder)
    }

    /// What the process of a run says goes there.
    pub fn log(&self, run: usize) -> PathBuf {
        let mut name = self.folder(run).into_os_string();
        name.push(".log");
        name.into()
    }

    /// How far a run is.
    pub fn state(&self, run: usize) -> State {
        let holds = |name: &str| self.folder(run).join(name).is_file();
        if holds("evaluation.json") {
            State::Finished
        } else if holds("config.toml") {
            State::Begun
        } else {
            State::Missing
        }
    }

    /// The runs that are not finished.
    pub fn open(&self) -> Vec<usize> {
        (0..self.runs.len()).filter(|&run| self.state(run) != State::Finished).collect()
    }

    /// The words of the command that brings a run to its end; none when it is there.
    pub fn command(&self, run: usize) -> Option<Vec<String>> {
        let folder = self.runs[run].folder.to_string_lossy().into_owned();
        match self.state(run) {
            State::Finished => None,
            State::Begun => Some(vec!["resume".into(), folder]),
            State::Missing => {
                let mut words = vec!["train".to_string()];
                words.extend(self.runs[run].arguments.iter().cloned());
                words.extend(["--seed".into(), self.runs[run].seed.to_string(), "--out".into(), folder]);
                Some(words)
            }
        }
    }

    /// What a run is called.
    pub fn name(&self, run: usize) -> String {
        format!("{}, seed {}", self.runs[run].setting, self.runs[run].seed)
    }

    /// Writes the plan for processes on other machines, and returns where.
    pub fn write(&self, name: &str) -> Result<PathBuf> {
        let path = self.root.join(&self.out).join(name);
        let text = serde_json::to_string(self).map_err(|e| Error::failure(format!("cannot encode a plan ({e})")))?;
        write_atomic(&path, text.as_bytes())?;
        Ok(path)
    }

    /// The plan that [`Self::write`] wrote.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(|e| {
            Error::usage(format!(
                "cannot read the plan {} ({e}): the machines of a sweep need one file system, at one place",
                path.display()
            ))
        })?;
        serde_json::from_str(&text)
            .map_err(|e| Error::usage(format!("{} is no plan of a sweep ({e}): type `sweep` again", path.display())))
    }
}

/// Whether a folder has runs of some seeds in it.
fn holds_runs(folder: &Path) -> bool {
    let run = |entry: fs::DirEntry| {
        entry.file_name().to_string_lossy().starts_with("seed-") && entry.path().join("config.toml").is_file()
    };
    fs::read_dir(folder).is_ok_and(|entries| entries.flatten().any(run))
}

/// The first key in which two configurations make different runs. Unlike in [`Config::difference`], steps and
/// evaluation count: nobody extends a sweep's run by hand, and its table is of one kind of evaluation.
fn differs(found: &Config, wanted: &Config) -> Option<String> {
    let leaves = |config: &Config| {
        let mut leaves = Vec::new();
        flatten("", &config.to_toml().parse::<Table>().unwrap_or_default(), &mut leaves);
        leaves.retain(|(key, _)| !WITHOUT_EFFECT.contains(&key.as_str()));
        leaves
    };
    let (found, wanted) = (leaves(found), leaves(wanted));
    let only = |mine: &[(String, Value)], theirs: &[(String, Value)]| {
        mine.iter().find(|leaf| !theirs.contains(leaf)).map(|(key, _)| key.clone())
    };
    only(&wanted, &found).or_else(|| only(&found, &wanted))
}

/// This program, for engines that start it elsewhere.
pub fn program() -> Result<PathBuf> {
    std::env::current_exe().map_err(|e| Error::failure(format!("cannot tell where this program is ({e})")))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::config::Sources;

    pub(crate) fn plan(root: &Path, settings: &[&str], seeds: &[u64]) -> Plan {
        let setting =
            |name: &&str| Setting { name: name.to_string(), arguments: vec!["--env".into(), "pendulum".into()] };
        let sweep = Sweep { out: None, seeds: seeds.to_vec(), settings: settings.iter().map(setting).collect() };
        Plan::new(root, Path::new("runs/s"), &sweep, config).unwrap()
    }

    fn config(_: &[String]) -> Result<Config> {
        Config::resolve(&Sources { total_timesteps: Some(1000), ..Sources::default() })
    }

    /// Puts a file into a run's folder.
    pub(crate) fn put(plan: &Plan, run: usize, name: &str, text: &str) {
        fs::create_dir_all(plan.folder(run)).unwrap();
        fs::write(plan.folder(run).join(name), text).unwrap();
    }

    #[test]
    fn a_folder_says_what_is_left_to_do() {
        let root = tempfile::tempdir().unwrap();
        let plan = plan(root.path(), &["a", "b"], &[3, 4]);
        let folders: Vec<_> = plan.runs.iter().map(|run| run.folder.to_str().unwrap()).collect();
        assert_eq!(folders, ["runs/s/a/seed-3", "runs/s/b/seed-3", "runs/s/a/seed-4", "runs/s/b/seed-4"]);
        assert!(plan.log(0).ends_with("runs/s/a/seed-3.log"));
        let words = || plan.command(0).map(|words| words.join(" "));
        assert_eq!(words().unwrap(), "train --env pendulum --seed 3 --out runs/s/a/seed-3");
        fs::create_dir_all(plan.folder(0)).unwrap();
        assert_eq!(plan.state(0), State::Missing);
        put(&plan, 0, "config.toml", "");
        assert_eq!((words().unwrap().as_str(), plan.state(0)), ("resume runs/s/a/seed-3", State::Begun));
        assert_eq!(plan.open(), [0, 1, 2, 3]);
        put(&plan, 0, "evaluation.json", "{}");
        assert_eq!((words(), plan.state(0)), (None, State::Finished));
        assert_eq!(plan.open(), [1, 2, 3]);
    }

    #[test]
    fn a_plan_survives_its_file() {
        let root = tempfile::tempdir().unwrap();
        let plan = plan(root.path(), &["a"], &[1, 2]);
        fs::create_dir_all(root.path().join("runs/s")).unwrap();
        let path = plan.write("plan.json").unwrap();
        assert_eq!(Plan::read(&path).unwrap(), plan);
        assert!(matches!(Plan::read(&root.path().join("none.json")), Err(Error::Usage(_))));
        fs::write(&path, "{}").unwrap();
        assert!(matches!(Plan::read(&path), Err(Error::Usage(_))));
    }

    #[test]
    fn a_folder_belongs_to_one_setting() {
        let root = tempfile::tempdir().unwrap();
        let mut plan = plan(root.path(), &["a"], &[1, 2]);
        plan.claim(config).unwrap();
        plan.claim(config).unwrap();
        assert_eq!(fs::read_to_string(root.path().join("runs/s/a/arguments.txt")).unwrap(), "--env pendulum\n");
        plan.runs[1].arguments[1] = "cartpole".into();
        let refusal = plan.claim(config).unwrap_err();
        assert_eq!(refusal.exit_code(), 2);
        assert!(refusal.to_string().contains("holds runs of `train --env pendulum`"), "{refusal}");
    }

    /// A folder that is somebody's is taken by nobody.
    #[test]
    fn only_a_folder_without_runs_is_claimed() {
        let root = tempfile::tempdir().unwrap();
        let plan = plan(root.path(), &["a"], &[1]);
        let stamp = root.path().join("runs/s/a/arguments.txt");
        put(&plan, 0, "config.toml", "");
        let refusal = plan.claim(config).unwrap_err();
        assert!(refusal.exit_code() == 2 && refusal.to_string().contains("no arguments.txt"), "{refusal}");
        assert!(!stamp.exists());
        // There, and not to be read.
        fs::create_dir(&stamp).unwrap();
        let refusal = plan.claim(config).unwrap_err().to_string();
        assert!(refusal.contains("cannot read") && refusal.contains("arguments.txt"), "{refusal}");
        // What is no run is left to `train`, which refuses that folder alone.
        fs::remove_dir(&stamp).unwrap();
        fs::rename(plan.folder(0).join("config.toml"), plan.folder(0).join("thesis.tex")).unwrap();
        plan.claim(config).unwrap();
    }

    #[test]
    fn runs_of_other_constants_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let plan = plan(root.path(), &["a"], &[1, 2]);
        plan.claim(config).unwrap();
        let mut of_it = config(&[]).unwrap();
        of_it.seed = 2;
        // How it is saved and watched is no matter.
        of_it.checkpoint_every += 1;
        put(&plan, 1, "config.toml", &of_it.to_toml());
        put(&plan, 1, "evaluation.json", "{}");
        plan.claim(config).unwrap();
        for (key, change) in [("seed", 0), ("total_timesteps", 1), ("eval.episodes", 2)] {
            let mut other = of_it.clone();
            match change {
                0 => other.seed = 1,
                1 => other.total_timesteps += 1,
                _ => other.eval.episodes += 1,
            }
            put(&plan, 1, "config.toml", &other.to_toml());
            let refusal = plan.claim(config).unwrap_err();
            assert_eq!(refusal.exit_code(), 2);
            let sentence = refusal.to_string();
            assert!(sentence.starts_with(&format!("{key} in ")) && sentence.contains("runs/s/a/seed-2"), "{sentence}");
        }
        // The same words with other constants behind them.
        put(&plan, 1, "config.toml", &of_it.to_toml());
        let changed = |words: &[String]| {
            config(words)?;
            let set = ["rfm.gamma=0.5".to_string()];
            Config::resolve(&Sources { total_timesteps: Some(1000), set: &set, ..Sources::default() })
        };
        let refusal = plan.claim(changed).unwrap_err().to_string();
        assert!(refusal.starts_with("rfm.gamma in "), "{refusal}");
    }

    #[test]
    fn what_train_would_refuse_is_refused_with_its_setting() {
        let sweep = Sweep {
            out: None,
            seeds: vec![1],
            settings: vec![Setting { name: "x".into(), arguments: vec!["--algo".into(), "ppo".into()] }],
        };
        let refused = Plan::new(Path::new("."), Path::new("o"), &sweep, |_| {
            Config::resolve(&Sources { algo: Some("ppo"), ..Sources::default() })
        });
        let sentence = refused.unwrap_err().to_string();
        assert!(sentence.starts_with("setting x: ") && sentence.contains("ppo"), "{sentence}");
    }
}
