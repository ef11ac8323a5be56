//! All algorithms on all tasks, over seeds: trains what is missing and writes `docs/results.md` with its pictures.

use crate::WrongUse;
use crate::campaign::{Campaign, Setting, Trainer};
use crate::document;
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// `cargo xtask results`.
#[derive(clap::Args)]
pub struct Options {
    /// Seeds of each algorithm and environment, from 1
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    /// Trainings side by side [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: Option<u16>,
    /// Algorithms
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_value = "rfm,sac,qsm,qne,dqs,qvpo")]
    algos: Vec<String>,
    /// Environments
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_value = "pendulum,cartpole,furuta,fork")]
    envs: Vec<String>,
    /// Control steps, as a factor on each environment's default; other than 1 for a trial
    #[arg(long, default_value_t = 1.0, value_name = "F")]
    scale: f64,
    /// Folder of the runs [default: runs/results, with the scale in its name where it is not 1]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Where to write results.md and its pictures [default: docs; for a scale other than 1 the folder of the runs]
    #[arg(long, value_name = "DIR")]
    docs: Option<PathBuf>,
    /// Train nothing: write the document from the runs that are there
    #[arg(long)]
    no_training: bool,
}

/// The pictures: file name, options of `plot`, what they show.
const PICTURES: [(&str, &[&str], &str); 3] = [
    ("single.svg", &["--metric", "single"], "return of single samples over control steps"),
    ("greedy.svg", &["--metric", "greedy"], "return of the greedy choice over control steps"),
    ("cpu.svg", &["--metric", "single", "--x", "cpu"], "return of single samples over CPU time"),
];

/// Control steps where the comparison is shorter than the environment's default: six algorithms, a training up to a minute.
const LENGTHS: [(&str, u64); 2] = [("cartpole", 120_000), ("furuta", 150_000)];
/// Episodes of an evaluation along the way: over five seeds the curves need no more of each.
const CURVE_EPISODES: &str = "eval.curve_episodes=2";

/// Trains and writes.
pub fn run(root: &Path, options: &Options) -> Result<u8> {
    check_scale(options.scale)?;
    let trainer = Trainer::build(root)?;
    let whole = options.scale == 1.0;
    let name = if whole { "runs/results".to_string() } else { format!("runs/results-{}", options.scale) };
    let out = options.out.clone().unwrap_or_else(|| name.into());
    let docs = options.docs.clone().unwrap_or_else(|| if whole { "docs".into() } else { out.clone() });
    let mut steps = if whole { BTreeMap::new() } else { scaled_steps(&trainer, options.scale)? };
    for (env, own) in LENGTHS {
        steps.insert(env.to_string(), (own as f64 * options.scale).round() as u64);
    }

    let mut settings = Vec::new();
    for env in &options.envs {
        for algo in &options.algos {
            let mut arguments: Vec<String> =
                ["--algo", algo, "--env", env, "--set", CURVE_EPISODES].map(String::from).to_vec();
            if let Some(steps) = steps.get(env) {
                arguments.extend(["--total-timesteps".into(), steps.to_string()]);
            }
            settings.push(Setting { name: format!("{env}__{algo}"), arguments });
        }
    }
    let campaign = Campaign { out, settings, first_seed: 1, seeds: options.seeds };
    let failures = campaign.run(&trainer, options.jobs, !options.no_training)?;
    let folders: Vec<PathBuf> = campaign.settings.iter().map(|setting| campaign.folder(setting)).collect();
    write(root, &trainer, options, &folders, &docs)?;
    for failure in &failures {
        println!("failed: {failure}");
    }
    println!("{}", root.join(&docs).join("results.md").display());
    Ok(u8::from(!failures.is_empty()))
}

/// Refuses a scale that is no factor on a number of steps.
pub(crate) fn check_scale(scale: f64) -> Result<()> {
    if scale > 0.0 && scale <= 100.0 {
        return Ok(());
    }
    Err(WrongUse(format!("--scale {scale}: give a factor above 0, at most 100")).into())
}

/// Control steps of each environment, scaled.
pub(crate) fn scaled_steps(trainer: &Trainer, scale: f64) -> Result<BTreeMap<String, u64>> {
    let listed = trainer.json(&["envs"])?;
    let envs = listed["envs"].as_array().context("`host-train envs --json` lists no environments")?;
    let steps = |env: &Value| {
        let steps = env["total_timesteps"].as_f64()? * scale;
        Some((env["name"].as_str()?.to_string(), steps.max(1.0).round() as u64))
    };
    envs.iter().map(|env| steps(env).context("`host-train envs --json` lists no control steps")).collect()
}

/// Writes the document from the runs in the folders.
fn write(root: &Path, trainer: &Trainer, options: &Options, folders: &[PathBuf], docs: &Path) -> Result<()> {
    // Folders without a run yet are left out, and said to be.
    let with_runs = |folder: &&PathBuf| {
        fs::read_dir(root.join(folder)).is_ok_and(|mut entries| {
            entries.any(|entry| entry.is_ok_and(|entry| entry.path().join("progress.csv").is_file()))
        })
    };
    let (known, unknown): (Vec<&PathBuf>, Vec<&PathBuf>) = folders.iter().partition(with_runs);
    let runs: Vec<String> = known.iter().map(|folder| folder.to_string_lossy().into_owned()).collect();
    let pictures = docs.join("results");
    fs::create_dir_all(root.join(&pictures))
        .with_context(|| format!("cannot make the folder {}", pictures.display()))?;
    let table = root.join(&pictures).join("table.md.tmp");
    let with_runs =
        |words: &[&str]| -> Vec<String> { words.iter().map(ToString::to_string).chain(runs.iter().cloned()).collect() };
    let report = trainer.json(&with_runs(&["report", "--out", &table.to_string_lossy()]))?;
    let markdown = fs::read_to_string(&table).with_context(|| format!("cannot read {}", table.display()))?;
    fs::remove_file(&table).with_context(|| format!("cannot remove {}", table.display()))?;
    let groups = report["groups"].as_array().context("`host-train report --json` has no groups")?;
    one_setting_each(groups)?;

    let mut text = String::new();
    for (file, arguments, caption) in PICTURES {
        let path = pictures.join(file);
        let mut words = with_runs(&["plot", "--out", &path.to_string_lossy()]);
        words.extend(arguments.iter().map(ToString::to_string));
        match trainer.json(&words) {
            Ok(_) => writeln!(text, "![{caption}](results/{file})\n")?,
            // Where no algorithm has the greedy choice there is nothing to draw.
            Err(error) => eprintln!("no picture {file}: {error:#}"),
        }
    }
    writeln!(text, "{}", markdown.trim_end())?;
    for folder in unknown {
        writeln!(text, "No run of {} has anything to show.", folder.display())?;
    }
    writeln!(text, "\n## How it was made\n")?;
    let scale = if options.scale == 1.0 { String::new() } else { format!(" --scale {}", options.scale) };
    let cpu: f64 = groups.iter().filter_map(cpu_seconds).sum();
    writeln!(
        text,
        "`cargo xtask results --seeds {} --algos {} --envs {}{scale}`, which trains each seed by `host-train train \
         --algo A --env E --seed N --set {CURVE_EPISODES}` ({}) and makes table and pictures by `host-train report` and \
         `host-train plot`. Training took {} CPU-minutes in all, evaluations not counted, on {}.\n\nThe constants of `rfm` \
         were tuned on `pendulum` and `cartpole` with many seeds, those of the others with one to three \
         (`docs/algorithms.md`): where intervals overlap, nothing is said about the algorithms.",
        options.seeds,
        options.algos.join(","),
        options.envs.join(","),
        LENGTHS.map(|(env, steps)| format!("`--total-timesteps {steps}` on {env}")).join(", "),
        document::number(cpu / 60.0),
        document::machine()
    )?;
    text.push_str(&settings(groups));
    if let Some(ways) = ways(trainer, &known)? {
        text.push_str(&ways);
    }
    document::write(&root.join(docs).join("results.md"), "Results", "cargo xtask results", &text)
}

/// Episodes that show the ways of a policy.
const WAY_EPISODES: &str = "100";

/// Which ways round the obstacle each algorithm takes, and what it still gets when one of them is closed after training;
/// nothing without runs on `fork`.
fn ways(trainer: &Trainer, folders: &[&PathBuf]) -> Result<Option<String>> {
    let name = |folder: &Path| Some(folder.file_name()?.to_str()?.strip_prefix("fork__")?.to_string());
    let mut rows = String::new();
    for folder in folders {
        let Some(algo) = name(folder) else { continue };
        let policy = folder.to_string_lossy();
        let mut cells = Vec::new();
        for blocked in ["env.blocked=0", "env.blocked=1", "env.blocked=2"] {
            let words = [
                "eval",
                "--policy",
                &policy,
                "--episodes",
                WAY_EPISODES,
                "--best-of",
                "1",
                "--set",
                "env.scatter=0",
                "--set",
                blocked,
            ];
            let played = trainer.json(&words.map(String::from))?;
            let mean = played["return_mean"].as_f64().context("`host-train eval --json` has no return_mean")?;
            if blocked == "env.blocked=0" {
                let runs = played["runs"].as_array().context("`host-train eval --json` has no runs")?;
                let share = |run: &Value| run["ways"]["single"]["upper"].as_f64().unwrap_or(0.0);
                let shares: Vec<String> = runs.iter().map(|run| format!("{:.0} %", 100.0 * share(run))).collect();
                let both = runs.iter().filter(|run| (0.05..=0.95).contains(&share(run))).count();
                cells.push(shares.join(", "));
                cells.push(format!("{both} of {}", runs.len()));
            }
            cells.push(document::number(mean));
        }
        writeln!(rows, "| {algo} | {} |", cells.join(" | "))?;
    }
    if rows.is_empty() {
        return Ok(None);
    }
    Ok(Some(format!(
        "\n## Two ways on fork\n\nSingle samples from the axis, {WAY_EPISODES} episodes a seed: `host-train eval --policy RUN \
         --episodes {WAY_EPISODES} --best-of 1 --set env.scatter=0 --set env.blocked=B`. The share of the upper way is that of each seed; a \
         seed uses both ways where each has at least 5 %. Closed: one way has a wall that no observation shows.\n\n\
         | algorithm | share of the upper way | seeds with both | return, both open | upper closed | lower closed |\n\
         |---|---|---|---|---|---|\n{rows}"
    )))
}

/// CPU-seconds of all seeds of a group.
fn cpu_seconds(group: &Value) -> Option<f64> {
    Some(group["cpu_seconds"]["mean"].as_f64()? * group["cpu_seconds"]["n"].as_f64()?)
}

/// Refuses runs of two settings under one name: old runs that a change of the defaults left behind.
pub(crate) fn one_setting_each(groups: &[Value]) -> Result<()> {
    let mixed = groups.iter().find(|group| group["label"].as_str().is_some_and(|label| !label.is_empty()));
    if let Some(group) = mixed {
        anyhow::bail!(
            "the seeds of {} on {} have different settings ({}): remove the older runs and train them again",
            group["algo"].as_str().unwrap_or("an algorithm"),
            group["env"].as_str().unwrap_or("an environment"),
            group["label"].as_str().unwrap_or_default()
        );
    }
    Ok(())
}

/// The constants that the runs were trained with: what all algorithms share, where they differ, what only one has.
fn settings(groups: &[Value]) -> String {
    // Key -> algorithm -> value -> environments.
    let mut keys: BTreeMap<String, BTreeMap<String, BTreeMap<String, BTreeSet<String>>>> = BTreeMap::new();
    let mut algos: Vec<String> = Vec::new();
    for group in groups {
        let (Some(env), Some(algo)) = (group["env"].as_str(), group["algo"].as_str()) else { continue };
        if !algos.iter().any(|known| known == algo) {
            algos.push(algo.to_string());
        }
        for (key, value) in group["settings"].as_object().into_iter().flatten() {
            if let Some(key) = key.strip_prefix(&format!("{algo}.")) {
                let value = value.as_str().unwrap_or_default().trim_matches('"').to_string();
                let values = keys.entry(key.to_string()).or_default().entry(algo.to_string()).or_default();
                values.entry(value).or_default().insert(env.to_string());
            }
        }
    }
    let told = |values: &BTreeMap<String, BTreeSet<String>>| {
        let parts = values.iter().map(|(value, on)| {
            let everywhere = values.len() == 1;
            if everywhere {
                value.clone()
            } else {
                format!("{value} on {}", on.iter().cloned().collect::<Vec<_>>().join(", "))
            }
        });
        parts.collect::<Vec<_>>().join("; ")
    };
    let (mut shared, mut differing, mut own) = (Vec::new(), Vec::new(), BTreeMap::<&String, Vec<String>>::new());
    for (key, by_algo) in &keys {
        let texts: BTreeMap<&String, String> = by_algo.iter().map(|(algo, values)| (algo, told(values))).collect();
        let distinct: BTreeSet<&String> = texts.values().collect();
        if let (1, Some((algo, text))) = (texts.len(), texts.first_key_value()) {
            own.entry(algo).or_default().push(format!("{key} {text}"));
        } else if texts.len() == algos.len() && distinct.len() == 1 {
            shared.push(format!("{key} {}", texts.values().next().map_or("", String::as_str)));
        } else {
            differing.push((key, texts));
        }
    }
    let mut out = String::new();
    if !shared.is_empty() && algos.len() > 1 {
        let _ = writeln!(out, "\nThe same for all algorithms: {}.", shared.join(", "));
    }
    if !differing.is_empty() {
        out.push_str("\nWhere they differ (a dash: it has no such constant):\n\n");
        out.push_str(&document::row(
            &std::iter::once("key").chain(algos.iter().map(String::as_str)).collect::<Vec<_>>(),
        ));
        out.push_str(&document::row(&vec!["---"; algos.len() + 1]));
        for (key, texts) in differing {
            let cells = algos.iter().map(|algo| texts.get(algo).map_or("-", String::as_str));
            out.push_str(&document::row(&std::iter::once(key.as_str()).chain(cells).collect::<Vec<_>>()));
        }
    }
    for (algo, list) in own {
        let has = if algos.len() > 1 { format!("Only `{algo}` has") } else { format!("`{algo}` has") };
        let _ = writeln!(out, "\n{has}: {}.", list.join(", "));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn group(env: &str, algo: &str, label: &str, settings: &[(&str, &str)]) -> Value {
        let settings: BTreeMap<String, &str> = settings.iter().map(|(k, v)| (format!("{algo}.{k}"), *v)).collect();
        json!({ "env": env, "algo": algo, "label": label, "settings": settings, "cpu_seconds": { "mean": 2.5, "n": 4 } })
    }

    #[test]
    fn settings_are_shared_differ_or_belong_to_one() {
        let text = settings(&[
            group("pendulum", "rfm", "", &[("gamma", "0.98"), ("tau", "0.01"), ("rule", "\"ess\"")]),
            group("cartpole", "rfm", "", &[("gamma", "0.99"), ("tau", "0.01"), ("rule", "\"ess\"")]),
            group("pendulum", "sac", "", &[("gamma", "0.98"), ("tau", "0.005")]),
            group("cartpole", "sac", "", &[("gamma", "0.99"), ("tau", "0.005")]),
        ]);
        assert!(text.contains("The same for all algorithms: gamma 0.98 on pendulum; 0.99 on cartpole."), "{text}");
        assert!(text.contains("| key | rfm | sac |\n| --- | --- | --- |\n| tau | 0.01 | 0.005 |"), "{text}");
        assert!(text.contains("Only `rfm` has: rule ess."), "{text}");
    }

    #[test]
    fn runs_of_two_settings_are_not_one_result() {
        assert!(one_setting_each(&[group("e", "rfm", "", &[])]).is_ok());
        let refusal = one_setting_each(&[group("e", "rfm", "tau=0.01", &[])]).unwrap_err().to_string();
        assert!(refusal.contains("rfm on e have different settings (tau=0.01)"), "{refusal}");
        assert_eq!(cpu_seconds(&group("e", "rfm", "", &[])), Some(10.0));
    }
}
