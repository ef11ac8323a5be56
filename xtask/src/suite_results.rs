//! The Control Suite's part of `docs/results.md`: what `cargo xtask reproduce` left, beside what others published.
//!
//! Configuration, curve and evaluation of every finished run are copied to `docs/results/suite`, beside those of earlier
//! campaigns, and everything is made from what is there: whoever doubts a row draws it again with `host-train report`,
//! and a machine that has other runs only adds to the table. Every setting is a row, whatever its length and seeds; the
//! pictures have the longest runs of each task. At equal steps algorithms differ in cost, so a second table compares
//! them at equal CPU time.

use crate::campaign::Trainer;
use crate::document;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// What a run leaves that is small enough to be kept with the project.
const KEPT: [&str; 3] = ["config.toml", "progress.csv", "evaluation.json"];

/// Pictures: file, what it shows, arguments of `host-train plot`.
const PICTURES: [(&str, &str, &[&str]); 2] = [
    ("suite.svg", "return of single samples over control steps", &["--metric", "single"]),
    ("suite-cpu.svg", "return of single samples over CPU time", &["--metric", "single", "--x", "cpu"]),
];

/// Returns that others published, as their logs have them: SAC after 200,000 and 300,000 control steps, TD-MPC2 and
/// SimbaV2 after 300,000, MR.Q after 250,000.
const PUBLISHED: [(&str, [&str; 4]); 7] = [
    ("cheetah-run", ["574, 614", "591", "860", "851"]),
    ("cartpole-swingup", ["842, 839", "874", "880", "859"]),
    ("fish-swim", ["58, 63", "604", "737", "519"]),
    ("walker-walk", ["923, 952", "977", "970", "966"]),
    ("walker-run", ["489, 533", "809", "780", "708"]),
    ("finger-spin", ["807, 844", "981", "854", "830"]),
    ("finger-turn_hard", ["124, 270", "705", "815", "768"]),
];

/// One setting: a folder `TASK__ALGO__PRESET__STEPS` with a folder for each seed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Setting {
    task: String,
    algo: String,
    preset: String,
    steps: u64,
    folder: PathBuf,
}

impl Setting {
    fn of(folder: &Path) -> Option<Self> {
        let name = folder.file_name()?.to_str()?;
        let mut parts = name.split("__");
        let mut next = || parts.next().map(String::from);
        let (task, algo, preset, steps) = (next()?, next()?, next()?, next()?.parse().ok()?);
        Some(Self { task, algo, preset, steps, folder: folder.to_path_buf() })
    }
}

/// Writes the block of `docs/results.md`, the pictures and the copies; `runs` are added to what was copied before.
pub fn write(root: &Path, trainer: &Trainer, runs: &Path, order: &[&str]) -> Result<()> {
    let folder = root.join("docs/results");
    let copies = folder.join("suite");
    keep(&settings_in(&root.join(runs))?, &copies)?;
    let mut settings = settings_in(&copies)?;
    let place = |task: &str| order.iter().position(|known| *known == task).unwrap_or(order.len());
    settings.sort_by_key(|s| (place(&s.task), s.steps, s.preset.clone(), s.algo.clone()));

    let mut text = String::new();
    for (name, shows, with) in PICTURES {
        let mut words: Vec<String> = ["plot", "--out"].map(String::from).to_vec();
        words.push(folder.join(name).to_string_lossy().into_owned());
        words.extend(with.iter().map(ToString::to_string));
        words.extend(longest(&settings).map(|s| s.folder.to_string_lossy().into_owned()));
        trainer.json(&words)?;
        writeln!(text, "![{shows}](results/{name})\n")?;
    }

    let (mut rows, mut cpu, mut before) = (String::new(), 0.0, String::new());
    for setting in &settings {
        let runs = seeds(setting).into_iter().map(|run| run.to_string_lossy().into_owned());
        let report = trainer.json(&["report".to_string()].into_iter().chain(runs).collect::<Vec<_>>())?;
        let groups = report["groups"].as_array().context("`host-train report --json` has no groups")?;
        let [group] = groups.as_slice() else {
            bail!("the runs in {} have several settings: move the older ones away", setting.folder.display());
        };
        let seconds = &group["cpu_seconds"];
        cpu += seconds["mean"].as_f64().unwrap_or(0.0) * seconds["n"].as_f64().unwrap_or(0.0);
        let published = if before == setting.task { None } else { Some(published(&setting.task)) };
        before.clone_from(&setting.task);
        rows.push_str(&row(setting, group, published.as_ref()));
    }
    let head = [
        "task",
        "control steps",
        "algorithm",
        "seeds",
        "single sample",
        "lowest, highest seed",
        "greedy",
        "CPU-minutes a run",
        "SAC 200k, 300k",
        "TD-MPC2 300k",
        "SimbaV2 300k",
        "MR.Q 250k",
    ];
    text.push_str(&document::row(&head));
    text.push_str(&document::row(&vec!["---"; head.len()]));
    text.push_str(&rows);
    write!(
        text,
        "\nMean over seeds of the mean return of 20 episodes (25 with the published constants), in brackets its 95 % bootstrap interval over seeds. Greedy: the best \
         of 16 samples by the critics (32 with the published constants), for SAC the mean action. The last four columns are others' \
         published figures. All trainings together took {:.1} CPU-hours, evaluations not counted, the last of them on {}. Configuration, curve and evaluation \
         of every run: [results/suite](results/suite).\n",
        cpu / 3600.0,
        document::machine()
    )?;
    text.push_str(&equal_cpu(&settings)?);
    document::write(&root.join("docs/results.md"), "Results", "cargo xtask reproduce --document", &text)
}

/// One run's curve: CPU-seconds and the return of single samples at each of its evaluations.
fn curve(run: &Path) -> Result<Vec<(f64, f64)>> {
    let path = run.join("progress.csv");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut lines = text.lines();
    let head: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    let column = |name: &str| {
        head.iter().position(|known| *known == name).with_context(|| format!("{} has no {name}", path.display()))
    };
    let (seconds, score) = (column("cpu_seconds")?, column("return_mean")?);
    let points = lines.filter_map(|line| {
        let cells: Vec<&str> = line.split(',').collect();
        Some((cells.get(seconds)?.parse().ok()?, cells.get(score)?.parse().ok()?))
    });
    Ok(points.collect())
}

/// A curve's value at a time, on the straight line between two of its points; none before its first or after its last.
fn at(curve: &[(f64, f64)], time: f64) -> Option<f64> {
    let (a, b) = curve.iter().zip(curve.iter().skip(1)).find(|(a, b)| a.0 <= time && time <= b.0)?;
    Some(if b.0 > a.0 { a.1 + (b.1 - a.1) * (time - a.0) / (b.0 - a.0) } else { b.1 })
}

/// The table of all tasks on which several algorithms trained equally long by our constants: their curves at the CPU time
/// at which the first run of any of them was done.
fn equal_cpu(settings: &[Setting]) -> Result<String> {
    let mut groups: BTreeMap<(&str, u64), Vec<&Setting>> = BTreeMap::new();
    for setting in settings.iter().filter(|setting| setting.preset == "default") {
        groups.entry((&setting.task, setting.steps)).or_default().push(setting);
    }
    groups.retain(|_, group| group.len() > 1);
    if groups.is_empty() {
        return Ok(String::new());
    }
    let algos: BTreeSet<&str> = groups.values().flatten().map(|setting| setting.algo.as_str()).collect();
    let mut head = vec!["task", "of control steps", "CPU-seconds"];
    head.extend(&algos);
    let mut text = format!("\n{}{}", document::row(&head), document::row(&vec!["---"; head.len()]));
    // In the order of the settings.
    let mut order: Vec<(&str, u64)> = settings.iter().map(|s| (s.task.as_str(), s.steps)).collect();
    order.dedup();
    for (key, group) in order.iter().filter_map(|key| groups.get_key_value(key)) {
        let mut curves: BTreeMap<&str, Vec<Vec<(f64, f64)>>> = BTreeMap::new();
        for setting in group {
            let of = seeds(setting).iter().map(|run| curve(run)).collect::<Result<_>>()?;
            curves.insert(&setting.algo, of);
        }
        let ends = curves.values().flatten().filter_map(|curve| Some(curve.last()?.0));
        let time = ends.fold(f64::INFINITY, f64::min);
        let cell = |algo: &&str| {
            let values: Vec<f64> = curves.get(*algo)?.iter().filter_map(|curve| at(curve, time)).collect();
            let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(l, h), x| (l.min(*x), h.max(*x)));
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            (!values.is_empty()).then(|| format!("{mean:.0} ({low:.0}, {high:.0})"))
        };
        let mut cells = vec![key.0.to_string(), key.1.to_string(), format!("{time:.0}")];
        cells.extend(algos.iter().map(|algo| cell(algo).unwrap_or("-".into())));
        text.push_str(&document::row(&cells));
    }
    text.push_str(
        "\nAt equal CPU time: the curves of single samples, between their points, when the first of these runs was done; mean \
         over seeds, in brackets the lowest and the highest. A point is the mean of few episodes.\n",
    );
    Ok(text)
}

/// The settings below a folder that have a finished run.
fn settings_in(folder: &Path) -> Result<Vec<Setting>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {}", folder.display()))?.path();
        found.extend(Setting::of(&path).filter(|setting| !seeds(setting).is_empty()));
    }
    Ok(found)
}

/// The finished runs of a setting.
fn seeds(setting: &Setting) -> Vec<PathBuf> {
    let entries = fs::read_dir(&setting.folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|run| run.join("evaluation.json").is_file()).collect()
}

/// Copies what is kept of every run, each over what was copied of the same run before.
fn keep(settings: &[Setting], to: &Path) -> Result<()> {
    for run in settings.iter().flat_map(seeds) {
        let (Some(seed), Some(setting)) = (run.file_name(), run.parent().and_then(Path::file_name)) else { continue };
        let place = to.join(setting).join(seed);
        fs::create_dir_all(&place).with_context(|| format!("cannot make the folder {}", place.display()))?;
        for name in KEPT {
            fs::copy(run.join(name), place.join(name))
                .with_context(|| format!("cannot copy {} of {}", name, run.display()))?;
        }
    }
    Ok(())
}

/// Of each task and algorithm the longest runs under our own constants.
fn longest(settings: &[Setting]) -> impl Iterator<Item = &Setting> {
    let mut longest: BTreeMap<(&str, &str), &Setting> = BTreeMap::new();
    for setting in settings.iter().filter(|setting| setting.preset == "default") {
        let known = longest.entry((&setting.task, &setting.algo)).or_insert(setting);
        if known.steps < setting.steps {
            *known = setting;
        }
    }
    longest.into_values()
}

/// What others published for a task; dashes where they did not.
fn published(task: &str) -> [&'static str; 4] {
    PUBLISHED.iter().find(|(name, _)| *name == task).map_or(["-"; 4], |(_, figures)| *figures)
}

/// The line of a setting; the published figures stand in the first of a task.
fn row(setting: &Setting, group: &Value, published: Option<&[&str; 4]>) -> String {
    let whole = |value: &Value| value.as_f64().map_or("-".to_string(), |x| format!("{x:.0}"));
    let mean = |scores: &Value| match scores["mean_ci95"].as_array().map(Vec::as_slice) {
        Some([low, high]) => format!("{} [{}, {}]", whole(&scores["mean"]), whole(low), whole(high)),
        _ => whole(&scores["mean"]),
    };
    let algo = if setting.preset == "default" {
        setting.algo.clone()
    } else {
        let key = format!("{}.actor_hidden", setting.algo);
        let width = group["settings"][&key].as_str().unwrap_or("?");
        format!("{}, published constants, width {width}", setting.algo)
    };
    let single = &group["single"];
    let minutes = group["cpu_seconds"]["mean"].as_f64().map_or("-".to_string(), |s| format!("{:.1}", s / 60.0));
    let mut cells = vec![
        setting.task.clone(),
        setting.steps.to_string(),
        algo,
        whole(&single["n"]),
        mean(single),
        format!("{}, {}", whole(&single["min"]), whole(&single["max"])),
        mean(&group["greedy"]),
        minutes,
    ];
    cells.extend(published.copied().unwrap_or([""; 4]).map(String::from));
    document::row(&cells)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn setting(name: &str) -> Setting {
        Setting::of(&Path::new("runs/reproduce").join(name)).unwrap()
    }

    #[test]
    fn folders_are_settings_and_the_longest_are_drawn() {
        let all = ["a__rfm__default__5", "a__rfm__default__20", "a__rfm__paper__90", "a__sac__default__5"].map(setting);
        assert_eq!((all[1].task.as_str(), all[1].algo.as_str(), all[1].steps), ("a", "rfm", 20));
        let drawn: Vec<u64> = longest(&all).map(|s| s.steps).collect();
        assert_eq!(drawn, [20, 5]);
        for other in ["campaign.toml", "table.md", "a__rfm__default", "a__rfm__default__many"] {
            assert_eq!(Setting::of(Path::new(other)), None, "{other}");
        }
    }

    #[test]
    fn rows_tell_interval_width_and_published_figures() {
        let scores = json!({ "n": 3, "mean": 501.6, "mean_ci95": [480.2, 520.0], "min": 480.2, "max": 520.0 });
        let group = json!({ "single": scores, "greedy": null, "cpu_seconds": { "mean": 90.0, "n": 3 },
            "settings": { "rfm.actor_hidden": "64" } });
        let line = row(&setting("walker-run__rfm__paper__100000"), &group, Some(&published("walker-run")));
        assert_eq!(
            line,
            "| walker-run | 100000 | rfm, published constants, width 64 | 3 | 502 [480, 520] | 480, 520 | - | 1.5 | 489, 533 | 809 | 780 | 708 |\n"
        );
        assert_eq!(published("fish-upright"), ["-"; 4]);
    }

    #[test]
    fn curves_are_compared_at_the_time_of_the_quickest() {
        let root = tempfile::tempdir().unwrap();
        let runs = [
            ("x__rfm__default__9/seed-1", "0,2,100\n9,8,400\n"),
            ("x__rfm__default__9/seed-2", "0,0,0\n5,3,100\n9,9,400\n"),
            ("x__sac__default__9/seed-1", "0,0,50\n9,5,70\n"),
            ("x__rfm__paper__9/seed-1", "0,0,0\n9,1,1\n"),
            ("y__rfm__default__9/seed-1", "0,0,0\n9,1,1\n"),
        ];
        for (run, lines) in runs {
            let run = root.path().join(run);
            fs::create_dir_all(&run).unwrap();
            fs::write(run.join("evaluation.json"), "{}").unwrap();
            fs::write(run.join("progress.csv"), format!("timesteps,cpu_seconds,return_mean\n{lines}")).unwrap();
        }
        let text = equal_cpu(&settings_in(root.path()).unwrap()).unwrap();
        // At 5 s: halfway from 100 to 400, a third of the way from 100 to 400, and the end.
        assert!(text.contains("| x | 9 | 5 | 225 (200, 250) | 70 (70, 70) |\n"), "{text}");
        assert!(!text.contains("| y |"), "{text}");
        assert_eq!(at(&[(2.0, 1.0), (3.0, 2.0)], 1.0), None);
    }

    #[test]
    fn finished_runs_are_kept_and_others_left() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("runs/x__sac__default__7");
        for (seed, names) in [("seed-1", &KEPT[..]), ("seed-2", &KEPT[..2])] {
            fs::create_dir_all(folder.join(seed)).unwrap();
            names.iter().for_each(|name| fs::write(folder.join(seed).join(name), seed).unwrap());
        }
        let settings = settings_in(&root.path().join("runs")).unwrap();
        let earlier = root.path().join("to/x__sac__default__7/seed-9");
        fs::create_dir_all(&earlier).unwrap();
        keep(&settings, &root.path().join("to")).unwrap();
        assert!(earlier.exists());
        let kept = root.path().join("to/x__sac__default__7");
        assert_eq!(fs::read_to_string(kept.join("seed-1/progress.csv")).unwrap(), "seed-1");
        assert!(!kept.join("seed-2").exists());
    }
}
