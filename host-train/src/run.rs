//! The folder of a run: where it lies, what is in it, and how it gets there.
//!
//! `config.toml`, `progress.csv`, `curve.svg`, `policy.flw` and the folder `checkpoints` are what a run leaves. Files are
//! written beside their place and renamed ([`write_atomic`]), so a reader sees the old file or the new one and never half
//! of either. A new run touches no folder with anything in it; a run that goes on has its folder to itself
//! ([`RunDir::lock`]). No panics; errors name the path.

use crate::config::Config;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const CONFIG: &str = "config.toml";

/// The folder of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// Makes the folder (`out` itself, or a new one under `runs/`) and writes `config.toml` into it.
    ///
    /// A folder that holds anything is refused.
    pub fn create(out: Option<&Path>, config: &Config) -> Result<Self> {
        let path = match out {
            Some(out) => out.to_path_buf(),
            None => fresh_path(Path::new("runs"), &Self::name(config), SystemTime::now()),
        };
        let shown = path.display();
        match fs::metadata(&path) {
            Ok(found) if !found.is_dir() => {
                return Err(Error::usage(format!("{shown} is a file: give --out a folder")));
            }
            Ok(_) => check_empty(&path)?,
            Err(_) => fs::create_dir_all(&path).map_err(|e| {
                Error::failure(format!("cannot make the run folder {shown} ({e}): choose another with --out"))
            })?,
        }
        let run = Self { path };
        write_atomic(&run.file(CONFIG), config.to_toml().as_bytes())?;
        Ok(run)
    }

    /// The folder of a run that there is already.
    pub fn open(path: &Path) -> Result<Self> {
        let shown = path.display();
        if !path.is_dir() {
            return Err(Error::usage(format!("{shown} is no folder: give the folder of a run")));
        }
        if !path.join(CONFIG).is_file() {
            return Err(Error::usage(format!("{shown} has no config.toml: give the folder of a run")));
        }
        Ok(Self { path: path.to_path_buf() })
    }

    /// The run's configuration, complete; with `total_timesteps` in place of its own where that is given.
    pub fn config(&self, total_timesteps: Option<u64>) -> Result<Config> {
        Config::complete(&self.file(CONFIG), total_timesteps)
    }

    /// Replaces the run's configuration.
    pub fn set_config(&self, config: &Config) -> Result<()> {
        write_atomic(&self.file(CONFIG), config.to_toml().as_bytes())
    }

    /// Keeps the folder for this process as long as the result lives; refused where another process has it.
    pub fn lock(&self) -> Result<Option<File>> {
        // Not every system opens folders, and not every file system locks them: there it is left to the user.
        let Ok(folder) = File::open(&self.path) else { return Ok(None) };
        // A process that ends lets go in a moment, as does a child between its fork and its exec.
        for _ in 0..50 {
            match folder.try_lock() {
                Ok(()) => return Ok(Some(folder)),
                Err(fs::TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(20)),
                Err(fs::TryLockError::Error(_)) => return Ok(None),
            }
        }
        Err(Error::failure(format!(
            "{} is being trained by another process: wait for it, or stop it first",
            self.path.display()
        )))
    }

    /// Whether a process has the folder to itself: see [`Self::lock`].
    pub fn is_held(path: &Path) -> bool {
        File::open(path).is_ok_and(|folder| matches!(folder.try_lock(), Err(fs::TryLockError::WouldBlock)))
    }

    /// Removes what a process that was killed while it wrote left beside its files.
    pub fn clean(&self) {
        for folder in [self.path.clone(), self.checkpoints()] {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.starts_with('.') && name.ends_with(".tmp") {
                    // What cannot be removed is in nobody's way.
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
    }

    /// Where its checkpoints are.
    pub fn checkpoints(&self) -> PathBuf {
        self.file("checkpoints")
    }

    /// A folder for several seeds, from the configuration's own on: `out` itself, or a new one under `runs/`. What holds
    /// anything is refused.
    pub fn parent(out: Option<&Path>, config: &Config, seeds: u64) -> Result<PathBuf> {
        let path = match out {
            Some(out) => out.to_path_buf(),
            None => {
                let last = config.seed + seeds - 1;
                let name = format!("{}__{}__{}-{last}", config.env.name, config.algo(), config.seed);
                fresh_path(Path::new("runs"), &name, SystemTime::now())
            }
        };
        result_folder(&path)?;
        check_empty(&path)?;
        Ok(path)
    }

    /// What a run's folder is called, the time apart.
    fn name(config: &Config) -> String {
        format!("{}__{}__{}", config.env.name, config.algo(), config.seed)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file of the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// `<root>/<name>__<time>`, numbered on where two runs start in one second.
fn fresh_path(root: &Path, name: &str, now: SystemTime) -> PathBuf {
    // A gymnasium environment has a colon or a slash in its name, which not every file system takes.
    let name = format!("{}__{}", name.replace([':', '/', '\\'], "-"), timestamp(now));
    let first = root.join(&name);
    if !first.exists() {
        return first;
    }
    (2..).map(|n| root.join(format!("{name}-{n}"))).find(|path| !path.exists()).unwrap_or(first)
}

/// Refuses a folder that holds anything: what an earlier run left is not lost to a mistyped name.
fn check_empty(path: &Path) -> Result<()> {
    let shown = path.display();
    let entries = fs::read_dir(path)
        .map_err(|e| Error::failure(format!("cannot read the folder {shown} ({e}): choose another with --out")))?;
    // What a process left that was killed as it began is nothing.
    let begun = |name: &str| name.starts_with(&format!(".{CONFIG}.")) && name.ends_with(".tmp");
    if entries.flatten().all(|entry| begun(&entry.file_name().to_string_lossy())) {
        return Ok(());
    }
    let holds = if path.join(CONFIG).is_file() { "holds a run already" } else { "is not empty" };
    Err(Error::usage(format!("{shown} {holds}: choose an empty or new folder with --out")))
}

/// Makes a folder for results and tries to write there: before the work rather than after it.
pub fn result_folder(path: &Path) -> Result<()> {
    let shown = path.display();
    if path.is_file() {
        return Err(Error::usage(format!("{shown} is a file: give --out a folder")));
    }
    fs::create_dir_all(path)
        .map_err(|e| Error::failure(format!("cannot make the folder {shown} ({e}): choose another with --out")))?;
    let trial = path.join(".trial");
    write_atomic(&trial, b"")?;
    fs::remove_file(&trial)
        .map_err(|e| Error::failure(format!("cannot change the folder {shown} ({e}): choose another with --out")))
}

/// Writes a whole file: beside its place, to the disk, then renamed; what returns outlasts a power cut.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |e: io::Error| {
        Error::failure(format!("cannot write {} ({e}): check the folder's permissions and free space", path.display()))
    };
    let name = path
        .file_name()
        .ok_or_else(|| Error::usage(format!("{} is not a file name: give a path that ends in one", path.display())))?;
    let mut beside = std::ffi::OsString::from(".");
    beside.push(name);
    beside.push(format!(".{}.tmp", std::process::id()));
    let beside = path.with_file_name(beside);
    let written = File::create(&beside)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&beside, path))
        .and_then(|()| sync_folder(path));
    if let Err(e) = written {
        // The file may never have come to be; the first error is the one to report.
        let _ = fs::remove_file(&beside);
        return Err(failed(e));
    }
    Ok(())
}

/// Brings the name of a file or folder to the disk: what it is called in the folder it lies in.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// One line of `progress.csv`: the state of training at an evaluation. What is not known is NaN and left empty.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProgressRow {
    /// Control steps so far.
    pub timesteps: u64,
    /// Decisions so far.
    pub decisions: u64,
    /// Updates so far.
    pub updates: u64,
    /// CPU-seconds so far.
    pub cpu_seconds: f64,
    /// Mean unscaled return of the training episodes since the last line.
    pub train_return: f64,
    /// Mean return of the evaluation by single samples.
    pub return_mean: f64,
    /// Half the width of its 95 % interval.
    pub return_ci95: f64,
    /// Mean return by the critic's best of several samples.
    pub return_best_of: f64,
    /// Loss of the critics.
    pub critic_loss: f64,
    /// Loss of the actor.
    pub actor_loss: f64,
    /// Mean action value of the batch.
    pub q_mean: f64,
    /// Effective sample size of the posterior mean.
    pub ess: f64,
    /// Estimated entropy of the target.
    pub entropy: f64,
    /// Temperature lambda.
    pub temperature: f64,
    /// Global norm of the actor's gradient.
    pub grad_norm: f64,
}

impl ProgressRow {
    /// The header of `progress.csv`.
    pub const COLUMNS: &'static str = "timesteps,decisions,updates,cpu_seconds,train_return,return_mean,return_ci95,\
        return_best_of,critic_loss,actor_loss,q_mean,ess,entropy,temperature,grad_norm";

    /// Everything but the counts, under the names that TensorBoard groups by.
    pub fn scalars(&self) -> [(&'static str, f64); 12] {
        [
            ("time/cpu_seconds", self.cpu_seconds),
            ("train/return", self.train_return),
            ("eval/return", self.return_mean),
            ("eval/return_ci95", self.return_ci95),
            ("eval/return_best_of", self.return_best_of),
            ("losses/critic", self.critic_loss),
            ("losses/actor", self.actor_loss),
            ("update/q_mean", self.q_mean),
            ("update/ess", self.ess),
            ("update/entropy", self.entropy),
            ("update/temperature", self.temperature),
            ("update/grad_norm", self.grad_norm),
        ]
    }

    fn line(&self) -> String {
        let mut line = format!("{},{},{}", self.timesteps, self.decisions, self.updates);
        for (_, value) in self.scalars() {
            line.push(',');
            if value.is_finite() {
                // The shortest text that reads back as the same number.
                line.push_str(&value.to_string());
            }
        }
        line.push('\n');
        line
    }
}

/// Writes `progress.csv`: a header and a line for every row.
pub fn write_progress(run: &RunDir, rows: &[ProgressRow]) -> Result<()> {
    let mut text = format!("{}\n", ProgressRow::COLUMNS);
    rows.iter().for_each(|row| text.push_str(&row.line()));
    write_atomic(&run.file("progress.csv"), text.as_bytes())
}

/// UTC, as `20261122-232903`.
fn timestamp(now: SystemTime) -> String {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    // Gregorian calendar counted from 1 March of year 0, so that the leap day is the last of its year.
    let day = day + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!(
        "{:04}{month:02}{date:02}-{:02}{:02}{:02}",
        era * 400 + year + next,
        second / 3_600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::preset("default", "rfm", "pendulum").unwrap()
    }

    fn names(path: &Path) -> Vec<String> {
        let entries = fs::read_dir(path).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Oracle: `date -u -d @N`.
    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "19700101-000000"),
            (951_782_399, "20000228-235959"),
            (951_782_400, "20000229-000000"),
            (1_709_251_199, "20240229-235959"),
            (1_709_251_200, "20240301-000000"),
            (1_767_225_599, "20251231-235959"),
            (4_107_542_400, "21000301-000000"),
        ] {
            assert_eq!(timestamp(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn two_runs_in_one_second_get_two_folders() {
        let root = tempfile::tempdir().unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(1_709_251_200);
        let first = fresh_path(root.path(), &RunDir::name(&config()), now);
        assert!(first.ends_with("pendulum__rfm__1__20240301-000000"));
        fs::create_dir(&first).unwrap();
        let second = fresh_path(root.path(), &RunDir::name(&config()), now);
        assert!(second.ends_with("pendulum__rfm__1__20240301-000000-2"));
    }

    #[test]
    fn out_is_the_folder_itself() {
        let root = tempfile::tempdir().unwrap();
        let out = root.path().join("a/b");
        let run = RunDir::create(Some(&out), &config()).unwrap();
        assert_eq!((run.path(), names(&out)), (out.as_path(), vec!["config.toml".to_string()]));
        let read = fs::read_to_string(run.file("config.toml")).unwrap();
        assert_eq!(read, config().to_toml());
    }

    #[test]
    fn folders_that_hold_something_are_left_alone() {
        let root = tempfile::tempdir().unwrap();
        for (held, word) in [("thesis.tex", "not empty"), ("config.toml", "run already"), ("policy.flw", "not empty")] {
            let out = root.path().join(held);
            fs::create_dir(&out).unwrap();
            fs::write(out.join(held), "mine").unwrap();
            let refused = RunDir::create(Some(&out), &config()).unwrap_err();
            assert!(matches!(&refused, Error::Usage(sentence) if sentence.contains(word)), "{refused}");
            assert_eq!((names(&out), fs::read(out.join(held)).unwrap()), (vec![held.to_string()], b"mine".to_vec()));
        }
        let file = root.path().join("file");
        fs::write(&file, "mine").unwrap();
        assert!(matches!(RunDir::create(Some(&file), &config()), Err(Error::Usage(_))));
        let beneath = RunDir::create(Some(&file.join("run")), &config());
        assert!(matches!(beneath, Err(Error::Failure(_))));
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_beside() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("x");
        write_atomic(&path, b"one").unwrap();
        write_atomic(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        // A folder cannot be replaced by a file: the rename fails after the writing went well.
        let folder = root.path().join("folder");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("inner"), "").unwrap();
        assert!(matches!(write_atomic(&folder, b"three"), Err(Error::Failure(_))));
        assert!(matches!(write_atomic(&root.path().join("no/x"), b""), Err(Error::Failure(_))));
        assert_eq!(names(root.path()), ["folder", "x"]);
    }

    #[test]
    fn progress_has_a_field_for_every_column() {
        let root = tempfile::tempdir().unwrap();
        let run = RunDir::create(Some(&root.path().join("r")), &config()).unwrap();
        let rows = [0, 1000].map(|timesteps| ProgressRow {
            timesteps,
            decisions: timesteps / 4,
            updates: timesteps / 4,
            cpu_seconds: 0.25,
            train_return: f64::NAN,
            return_mean: -150.5,
            return_ci95: 80.0 / (1.0 + timesteps as f64),
            return_best_of: -140.0,
            critic_loss: 1.5e-3,
            actor_loss: 1.0,
            q_mean: -3.25,
            ess: 3.0,
            entropy: f64::NAN,
            temperature: 0.1,
            grad_norm: f64::INFINITY,
        });
        write_progress(&run, &rows).unwrap();
        let text = fs::read_to_string(run.file("progress.csv")).unwrap();
        let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split(',').collect()).collect();
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|l| l.len() == 15), "{text}");
        let of = |name: &str| lines[2][lines[0].iter().position(|c| *c == name).unwrap()];
        assert_eq!((of("timesteps"), of("return_mean"), of("critic_loss")), ("1000", "-150.5", "0.0015"));
        // Unknown is empty.
        assert_eq!((of("train_return"), of("entropy"), of("grad_norm")), ("", "", ""));
    }
}
