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
    let mut ends = Vec::new();
    for setting in settings {
        let runs = seeds(&setting).into_iter().map(|run| run.to_string_lossy().into_owned());
        let report = trainer.json(&["report".to_string()].into_iter().chain(runs).collect::<Vec<_>>())?;
        let groups = report["groups"].as_array().context("`host-train report --json` has no groups")?;
        let [group] = groups.as_slice() else {
            bail!("the runs in {} have several settings: move the older ones away", setting.folder.display());
        };
        let seconds = &group["cpu_seconds"];
        cpu += seconds["mean"].as_f64().unwrap_or(0.0) * seconds["n"].as_f64().unwrap_or(0.0);
        let published = if before == setting.task { None } else { Some(published(&setting.task)) };
        before.clone_from(&setting.task);
        rows.push_str(&row(&setting, group, published.as_ref()));
        ends.push((setting, seconds["min"].as_f64().unwrap_or(f64::INFINITY)));
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
    text.push_str(&equal_cpu(trainer, &ends)?);
    document::write(&root.join("docs/results.md"), "Results", "cargo xtask reproduce --document", &text)
}

/// The table of all tasks on which several algorithms trained equally long by our constants: what their curves had reached
/// when the first run of any of them was done. Each setting comes with the CPU-seconds of its quickest run.
fn equal_cpu(trainer: &Trainer, settings: &[(Setting, f64)]) -> Result<String> {
    let mut groups: Vec<Vec<&(Setting, f64)>> = Vec::new();
    for entry in settings.iter().filter(|(setting, _)| setting.preset == "default") {
        let same = |group: &&mut Vec<&(Setting, f64)>| {
            group.iter().all(|(s, _)| s.task == entry.0.task && s.steps == entry.0.steps)
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.push(entry),
            None => groups.push(vec![entry]),
        }
    }
    groups.retain(|group| group.len() > 1);
    if groups.is_empty() {
        return Ok(String::new());
    }
    let algos: BTreeSet<&str> = groups.iter().flatten().map(|(setting, _)| setting.algo.as_str()).collect();
    let mut head = vec!["task", "of control steps", "CPU-seconds"];
    head.extend(&algos);
    let mut text = format!("\n{}{}", document::row(&head), document::row(&vec!["---"; head.len()]));
    for group in groups {
        let time = group.iter().map(|(_, end)| *end).fold(f64::INFINITY, f64::min);
        let mut words = ["report", "--cpu-seconds", &time.to_string()].map(String::from).to_vec();
        words.extend(group.iter().flat_map(|(s, _)| seeds(s)).map(|run| run.to_string_lossy().into_owned()));
        let report = trainer.json(&words)?;
        let found = report["groups"].as_array().context("`host-train report --json` has no groups")?;
        let cell = |algo: &&str| {
            let of = found.iter().find(|group| group["algo"] == **algo);
            of.map_or("-".into(), |group| mean_with_interval(&group["single_at_cpu_seconds"]))
        };
        let (first, _) = group[0];
        let mut cells = vec![first.task.clone(), first.steps.to_string(), format!("{time:.0}")];
        cells.extend(algos.iter().map(cell));
        text.push_str(&document::row(&cells));
    }
    text.push_str(
        "\nAt equal CPU time, by `host-train report --cpu-seconds`: what the curves of single samples had reached when the first \
         of these runs was done; mean over seeds with its interval. A point of a curve is the mean of few episodes.\n",
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

/// A score without decimals, a dash where there is none.
fn whole(value: &Value) -> String {
    value.as_f64().map_or("-".to_string(), |x| format!("{x:.0}"))
}

/// A mean, with its interval where it has one.
fn mean_with_interval(scores: &Value) -> String {
    match scores["mean_ci95"].as_array().map(Vec::as_slice) {
        Some([low, high]) => format!("{} [{}, {}]", whole(&scores["mean"]), whole(low), whole(high)),
        _ => whole(&scores["mean"]),
    }
}

/// The line of a setting; the published figures stand in the first of a task.
fn row(setting: &Setting, group: &Value, published: Option<&[&str; 4]>) -> String {
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
        mean_with_interval(single),
        format!("{}, {}", whole(&single["min"]), whole(&single["max"])),
        mean_with_interval(&group["greedy"]),
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

    /// A script stands for the trainer: it answers with what it was asked.
    #[test]
    fn algorithms_are_compared_at_the_time_of_the_quickest() {
        let root = tempfile::tempdir().unwrap();
        let named = |name: &str| {
            let folder = root.path().join(name);
            fs::create_dir_all(folder.join("seed-1")).unwrap();
            fs::write(folder.join("seed-1/evaluation.json"), "{}").unwrap();
            Setting::of(&folder).unwrap()
        };
        let script = root.path().join("host-train");
        let wanted = "report --cpu-seconds 5 R/x__rfm__default__9/seed-1 R/x__sac__default__9/seed-1 --json"
            .replace("R/", &format!("{}/", root.path().display()));
        let told = "{\"groups\":[{\"algo\":\"sac\",\"single_at_cpu_seconds\":{\"mean\":70}},\
                    {\"algo\":\"rfm\",\"single_at_cpu_seconds\":{\"mean\":225,\"mean_ci95\":[200,250]}}]}";
        fs::write(&script, format!("#!/bin/sh\n[ \"$*\" = '{wanted}' ] || exit 5\necho '{told}'\n")).unwrap();
        let mut permissions = fs::metadata(&script).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
        fs::set_permissions(&script, permissions).unwrap();
        let trainer = Trainer::at(root.path(), &script);
        let settings = [
            ("x__rfm__default__9", 8.0),
            ("x__rfm__paper__9", 1.0),
            ("x__sac__default__9", 5.0),
            ("x__rfm__default__20", 2.0),
            ("y__rfm__default__9", 3.0),
        ];
        let settings = settings.map(|(name, end)| (named(name), end));
        let text = equal_cpu(&trainer, &settings).unwrap();
        assert!(text.contains("| x | 9 | 5 | 225 [200, 250] | 70 |\n"), "{text}");
        assert!(!text.contains("| y |") && !text.contains("| 20 |"), "{text}");
        // Nothing to compare.
        assert_eq!(equal_cpu(&trainer, &settings[1..2]).unwrap(), "");
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
