//! Finding runs below the given folders and reading what they left.
//!
//! A run is a folder with `config.toml`. Its `progress.csv` is read by the names in its header, its `evaluation.json`
//! by its keys, so columns and keys may be added. A run without `evaluation.json` is unfinished and keeps its rows; the
//! last line of its table may be half written and is then left out. Anything else that cannot be read is an error with
//! the file and the line.

use crate::{Error, Result};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// How many folders deep runs are looked for.
const DEPTH: usize = 5;

/// One run, as its folder tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The folder.
    pub path: PathBuf,
    /// The environment.
    pub env: String,
    /// The algorithm.
    pub algo: String,
    /// The seed.
    pub seed: u64,
    /// Every key of the configuration but the seed, with its value as TOML writes it.
    pub settings: BTreeMap<String, String>,
    /// The learning curve, in rising order of control steps.
    pub rows: Vec<Row>,
    /// The final evaluation; none while the run is unfinished.
    pub evaluation: Option<Evaluation>,
}

/// One line of `progress.csv`, as far as reports need it; NaN where nothing was known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// Control steps so far.
    pub timesteps: f64,
    /// Updates so far.
    pub updates: f64,
    /// CPU-seconds of training so far.
    pub cpu_seconds: f64,
    /// Mean return of the training episodes since the line before.
    pub train: f64,
    /// Mean return of single samples.
    pub single: f64,
    /// Mean return of the greedy choice.
    pub greedy: f64,
}

/// `evaluation.json`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Evaluation {
    /// Control steps trained.
    pub timesteps: u64,
    /// Updates made.
    pub updates: u64,
    /// CPU-seconds of training.
    pub cpu_seconds: f64,
    /// Episodes played.
    pub episodes: u64,
    /// Samples from which the greedy choice picked.
    pub best_of: u64,
    /// By single samples.
    pub single: Outcome,
    /// By the greedy choice, where there is one.
    pub greedy: Option<Outcome>,
    /// Shares of episodes by the way taken, where the task has ways.
    pub ways: Option<Ways>,
}

/// Returns of the episodes of one evaluation.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Outcome {
    /// Their mean.
    pub mean: f64,
    /// The lowest.
    pub min: f64,
    /// The highest.
    pub max: f64,
}

/// Shares of the episodes that took each way, by its label.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Ways {
    /// Of single samples.
    #[serde(default)]
    pub single: BTreeMap<String, f64>,
    /// Of the greedy choice.
    pub greedy: Option<BTreeMap<String, f64>>,
}

impl Run {
    /// The run in a folder.
    pub fn load(path: &Path) -> Result<Self> {
        let settings = settings(&path.join("config.toml"))?;
        let named = |key: &str| -> Result<String> {
            let value = settings.get(key).map(|value| value.trim_matches('"').to_string());
            value.ok_or_else(|| damaged(&path.join("config.toml"), &format!("it has no key {key}")))
        };
        let (env, algo, seed) = (named("env.name")?, named("algo")?, named("seed")?);
        let seed =
            seed.parse().map_err(|_| damaged(&path.join("config.toml"), &format!("seed = {seed} is no seed")))?;
        let evaluation = evaluation(&path.join("evaluation.json"))?;
        let rows = rows(&path.join("progress.csv"), evaluation.is_some())?;
        let settings = settings.into_iter().filter(|(key, _)| key != "seed").collect();
        Ok(Self { path: path.to_path_buf(), env, algo, seed, settings, rows, evaluation })
    }

    /// Whether training came to its end and was evaluated.
    pub fn finished(&self) -> bool {
        self.evaluation.is_some()
    }

    /// Return of single samples: by the final evaluation, or by the last line that knows one.
    pub fn single(&self) -> f64 {
        let last = || self.last(|row| row.single);
        self.evaluation.as_ref().map_or_else(last, |evaluation| evaluation.single.mean)
    }

    /// Return of the greedy choice, likewise; NaN where there is none.
    pub fn greedy(&self) -> f64 {
        let of = |evaluation: &Evaluation| evaluation.greedy.as_ref().map_or(f64::NAN, |outcome| outcome.mean);
        self.evaluation.as_ref().map_or_else(|| self.last(|row| row.greedy), of)
    }

    /// Control steps so far.
    pub fn timesteps(&self) -> f64 {
        self.evaluation.as_ref().map_or_else(|| self.last(|row| row.timesteps), |e| e.timesteps as f64)
    }

    /// Updates so far.
    pub fn updates(&self) -> f64 {
        self.evaluation.as_ref().map_or_else(|| self.last(|row| row.updates), |e| e.updates as f64)
    }

    /// CPU-seconds of training so far.
    pub fn cpu_seconds(&self) -> f64 {
        self.evaluation.as_ref().map_or_else(|| self.last(|row| row.cpu_seconds), |e| e.cpu_seconds)
    }

    /// The last known value of a column.
    fn last(&self, column: impl Fn(&Row) -> f64) -> f64 {
        self.rows.iter().rev().map(column).find(|x| x.is_finite()).unwrap_or(f64::NAN)
    }
}

/// Runs, and what is worth a remark about folders that were passed over.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// Every run once, in the order of the given paths, below each by name.
    pub runs: Vec<Run>,
    /// One sentence for each folder that was passed over.
    pub remarks: Vec<String>,
}

/// Loads the runs in the given folders and below them.
pub fn load(paths: &[PathBuf]) -> Result<Found> {
    let mut found = Found::default();
    let mut seen = BTreeSet::new();
    for path in paths {
        let shown = path.display();
        let meta = fs::metadata(path)
            .map_err(|e| Error::usage(format!("cannot read {shown} ({e}): name a run folder, or a folder of runs")))?;
        // A file of a run stands for the run.
        let folder = if meta.is_dir() { path.as_path() } else { path.parent().unwrap_or(path) };
        let mut folders = Vec::new();
        find(folder, if meta.is_dir() { DEPTH } else { 0 }, &mut folders)?;
        if folders.is_empty() {
            return Err(Error::usage(format!(
                "{shown} holds no run: name a run folder (with config.toml and progress.csv), or a folder of runs"
            )));
        }
        for folder in folders {
            let same = folder.canonicalize().unwrap_or_else(|_| folder.clone());
            if !seen.insert(same) {
                continue;
            }
            let run = Run::load(&folder)?;
            if run.evaluation.is_none() && !run.single().is_finite() && run.rows.len() < 2 {
                found.remarks.push(format!("{}: nothing was measured yet, left out", folder.display()));
            } else {
                found.runs.push(run);
            }
        }
    }
    if found.runs.is_empty() {
        return Err(Error::usage(format!("no run has anything to show yet: {}", found.remarks.join("; "))));
    }
    Ok(found)
}

/// Collects the run folders at and below a folder, by name.
fn find(folder: &Path, depth: usize, out: &mut Vec<PathBuf>) -> Result<()> {
    if folder.join("config.toml").is_file() {
        out.push(folder.to_path_buf());
        return Ok(());
    }
    if depth == 0 {
        return Ok(());
    }
    let unread = |e: std::io::Error| {
        Error::failure(format!("cannot read the folder {} ({e}): check its permissions", folder.display()))
    };
    let mut inner = Vec::new();
    for entry in fs::read_dir(folder).map_err(unread)? {
        let entry = entry.map_err(unread)?;
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        // Links are not followed: they may lead round in a circle.
        if !hidden && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            inner.push(entry.path());
        }
    }
    inner.sort_by_cached_key(|path| natural(&path.to_string_lossy()));
    inner.iter().try_for_each(|path| find(path, depth - 1, out))
}

/// A key that sorts `seed-2` before `seed-10`: runs of digits by their value.
fn natural(text: &str) -> Vec<(String, u64)> {
    let mut parts = vec![(String::new(), 0u64)];
    let mut in_number = false;
    for c in text.chars() {
        if let (Some(digit), Some(part)) = (c.to_digit(10), parts.last_mut()) {
            part.1 = part.1.saturating_mul(10).saturating_add(u64::from(digit));
            in_number = true;
            continue;
        }
        if in_number {
            parts.push((String::new(), 0));
            in_number = false;
        }
        if let Some(part) = parts.last_mut() {
            part.0.push(c);
        }
    }
    parts
}

/// A file of a run that is not what it should be.
fn damaged(path: &Path, what: &str) -> Error {
    Error::failure(format!("{} is damaged ({what}): train this run anew, or leave its folder out", path.display()))
}

/// The text of a file; none where there is no such file.
fn text(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) if e.kind() == ErrorKind::InvalidData => Err(damaged(path, "it is not text")),
        Err(e) => Err(Error::failure(format!("cannot read {} ({e}): check its permissions", path.display()))),
    }
}

/// The leaves of `config.toml` by their dotted keys.
fn settings(path: &Path) -> Result<BTreeMap<String, String>> {
    fn flatten(prefix: &str, table: &toml::Table, out: &mut BTreeMap<String, String>) {
        for (key, value) in table {
            let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            match value {
                toml::Value::Table(inner) => flatten(&key, inner, out),
                leaf => drop(out.insert(key, leaf.to_string())),
            }
        }
    }
    let text = text(path)?.unwrap_or_default();
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
        let line = e.span().map_or(0, |span| text[..span.start].matches('\n').count() + 1);
        damaged(path, &format!("line {line} is not TOML"))
    })?;
    let mut out = BTreeMap::new();
    flatten("", &table, &mut out);
    Ok(out)
}

fn evaluation(path: &Path) -> Result<Option<Evaluation>> {
    let Some(text) = text(path)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|e| damaged(path, &e.to_string()))
}

/// The rows of `progress.csv`. `whole`: the run has ended, so its last line cannot be on its way.
fn rows(path: &Path, whole: bool) -> Result<Vec<Row>> {
    let Some(text) = text(path)? else { return Ok(Vec::new()) };
    let mut lines = text.split_inclusive('\n').enumerate();
    let Some((_, header)) = lines.next() else { return Ok(Vec::new()) };
    let names: Vec<&str> = header.trim_end().split(',').collect();
    let column = |name: &str| names.iter().position(|known| *known == name);
    let needed = |name: &str| column(name).ok_or_else(|| damaged(path, &format!("its header has no column {name}")));
    let (timesteps, single) = (needed("timesteps")?, needed("return_mean")?);
    let columns = ["updates", "cpu_seconds", "train_return", "return_best_of"].map(column);
    let mut rows: Vec<Row> = Vec::new();
    for (number, line) in lines {
        // A line that is being written has no end yet.
        if line.trim().is_empty() || (!whole && !line.ends_with('\n')) {
            continue;
        }
        let wrong = |what: String| damaged(path, &format!("line {}: {what}", number + 1));
        let fields: Vec<&str> = line.trim_end().split(',').collect();
        if fields.len() != names.len() {
            return Err(wrong(format!("{} fields under {} columns", fields.len(), names.len())));
        }
        let number = |place: usize| -> Result<f64> {
            let field = fields[place].trim();
            if field.is_empty() {
                return Ok(f64::NAN);
            }
            field.parse().map_err(|_| wrong(format!("{} = {field} is no number", names[place])))
        };
        let [updates, cpu_seconds, train, greedy] = columns.map(|place| place.map_or(Ok(f64::NAN), number));
        let row = Row {
            timesteps: number(timesteps)?,
            updates: updates?,
            cpu_seconds: cpu_seconds?,
            train: train?,
            single: number(single)?,
            greedy: greedy?,
        };
        if !row.timesteps.is_finite() {
            return Err(wrong("timesteps is empty".into()));
        }
        // A run that was continued from a checkpoint before its last line goes on from there.
        while rows.last().is_some_and(|last| last.timesteps >= row.timesteps) {
            rows.pop();
        }
        rows.push(row);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture::{Fixture, config, evaluation_json};

    fn refused(paths: &[PathBuf]) -> String {
        let error = load(paths).unwrap_err();
        let text = error.to_string();
        assert!(!text.contains('\n'), "{text}");
        text
    }

    /// A run as text: what is not known is NaN, which is not equal to itself.
    fn shown(run: &Run) -> String {
        format!("{run:?}")
    }

    #[test]
    fn runs_are_found_alone_in_a_parent_and_deeper() {
        let all = Fixture::new();
        for seed in [10, 2, 1] {
            all.run(&format!("a/rfm/seed-{seed}"), "pendulum", "rfm", seed);
        }
        all.run("b", "cartpole", "sac", 7);
        all.file("a/rfm/seed-1/checkpoints/config.toml", "not a run");
        all.file("c/notes.txt", "no run either");
        let seeds = |name: &str| load(&[all.path(name)]).unwrap().runs.iter().map(|r| r.seed).collect::<Vec<_>>();
        assert_eq!(seeds("b"), [7]);
        assert_eq!(seeds("a/rfm"), [1, 2, 10]);
        assert_eq!(seeds("a/rfm/seed-2/progress.csv"), [2]);
        assert_eq!(seeds(""), [1, 2, 10, 7]);
        // Named twice, loaded once.
        assert_eq!(load(&[all.path("a"), all.path("a/rfm/seed-2"), all.path("b")]).unwrap().runs.len(), 4);
        let run = &load(&[all.path("b")]).unwrap().runs[0];
        assert_eq!((run.env.as_str(), run.algo.as_str(), run.finished()), ("cartpole", "sac", true));
        assert_eq!(run.settings["sac.gamma"], "0.99");
        assert!(!run.settings.contains_key("seed"));
    }

    #[test]
    fn folders_without_runs_are_named() {
        let all = Fixture::new();
        all.file("c/notes.txt", "no run");
        assert!(refused(&[all.path("c")]).contains("holds no run"));
        assert!(refused(&[all.path("c/notes.txt")]).contains("notes.txt holds no run"));
        assert!(refused(&[all.path("gone")]).contains("cannot read"));
        // A run that has measured nothing yet.
        all.file("d/config.toml", &config("pendulum", "rfm", 1, &[]));
        assert!(refused(&[all.path("d")]).contains("nothing was measured yet"));
        all.run("e", "pendulum", "rfm", 1);
        let found = load(&[all.path("")]).unwrap();
        assert_eq!((found.runs.len(), found.remarks.len()), (1, 1));
    }

    #[test]
    fn damage_is_named_with_file_and_line() {
        let all = Fixture::new();
        all.run("r", "pendulum", "rfm", 1);
        let good = fs::read_to_string(all.path("r/progress.csv")).unwrap();
        let with = |name: &str, text: &str| {
            all.file(&format!("r/{name}"), text);
            refused(&[all.path("r")])
        };
        let short = format!("{good}9000,1,2\n");
        let text = with("progress.csv", &short);
        assert!(text.contains("progress.csv is damaged") && text.contains("3 fields under 15 columns"), "{text}");
        let text = with("progress.csv", &good.replacen("0.5", "o.5", 1));
        assert!(text.contains("line 3: cpu_seconds = o.5 is no number"), "{text}");
        let text = with("progress.csv", &good.replacen("return_mean", "mean", 1));
        assert!(text.contains("no column return_mean"), "{text}");
        fs::write(all.path("r/progress.csv"), [0xff, 0xfe, 0x00]).unwrap();
        assert!(refused(&[all.path("r")]).contains("it is not text"));
        all.file("r/progress.csv", &good);
        let text = with("evaluation.json", &evaluation_json(1)[..40]);
        assert!(text.contains("evaluation.json is damaged") && text.contains("line 1"), "{text}");
        let text = with("evaluation.json", &evaluation_json(1).replace("\"single\"", "\"sinngle\""));
        assert!(text.contains("missing field `single`"), "{text}");
        all.file("r/evaluation.json", &evaluation_json(1));
        assert!(with("config.toml", "seed = = 3").contains("line 1 is not TOML"));
        assert!(with("config.toml", "seed = 3\nalgo = \"rfm\"").contains("no key env.name"));
    }

    #[test]
    fn an_unfinished_run_counts_by_its_last_row() {
        let all = Fixture::new();
        all.run("r", "pendulum", "rfm", 1);
        fs::remove_file(all.path("r/evaluation.json")).unwrap();
        let good = fs::read_to_string(all.path("r/progress.csv")).unwrap();
        let last = Run::load(&all.path("r")).unwrap();
        assert!(!last.finished());
        let row = last.rows.last().unwrap();
        assert_eq!((last.single(), last.greedy(), last.timesteps()), (row.single, row.greedy, row.timesteps));
        // Half of a line is on its way.
        all.file("r/progress.csv", &format!("{good}9000,1,2"));
        assert_eq!(shown(&Run::load(&all.path("r")).unwrap()), shown(&last));
        // Continued from 1000: what came after it the first time is gone.
        let again = good.lines().nth(3).unwrap();
        all.file("r/progress.csv", &format!("{good}{}\n", again.replacen("2000", "1500", 1)));
        let steps: Vec<f64> = Run::load(&all.path("r")).unwrap().rows.iter().map(|r| r.timesteps).collect();
        assert_eq!(steps, [0.0, 1000.0, 1500.0]);
    }

    #[test]
    fn more_columns_and_keys_are_no_harm() {
        let all = Fixture::new();
        all.run("r", "fork", "rfm", 1);
        let plain = Run::load(&all.path("r")).unwrap();
        let csv = fs::read_to_string(all.path("r/progress.csv")).unwrap();
        let wider: String =
            csv.lines().enumerate().map(|(i, l)| format!("{},{l}\n", ["extra", "7"][i.min(1)])).collect();
        all.file("r/progress.csv", &wider);
        all.file("r/evaluation.json", &evaluation_json(1).replacen('{', "{\"more\":[1,{}],", 1));
        assert_eq!(shown(&Run::load(&all.path("r")).unwrap()), shown(&plain));
    }
}
