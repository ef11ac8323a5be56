//! Final evaluations as a table: Markdown for people, JSON for programs.
//!
//! The score of a run is the mean return over its evaluation episodes; [`Scores`] sums up the scores of the seeds. An
//! unfinished run counts with the last line of its table, and is named. With several environments the algorithms that
//! have all of them are also compared over all: scores are put on one scale, where 0 and 1 are the lowest and the
//! highest score of any run on that environment, and environments are the strata of the bootstrap. Pure; no panics.

use super::curves::single_at_cpu;
use super::group::Group;
use super::load::Run;
use crate::stats::{Bootstrap, Interval, Scores};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// A way counts as used from this share of the episodes on.
const USED: f64 = 0.05;
/// The label of episodes that took none.
const NO_WAY: &str = "none";

/// What is to be added to a report.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    /// Groups to compare with, seed by seed.
    pub baseline: Vec<Group>,
    /// A score below this one is a failure.
    pub threshold: Option<f64>,
    /// The curves' returns after so many CPU-seconds of training are to be told too.
    pub cpu_budget: Option<f64>,
}

/// The line of one group.
#[derive(Clone, Debug, PartialEq)]
struct Line {
    single: Scores,
    greedy: Scores,
    cpu_seconds: Scores,
    ways: Option<WayShares>,
    /// Single-sample scores minus those of the same seeds of the baseline.
    difference: Option<Scores>,
    /// Share of the seeds below the threshold.
    below: Option<f64>,
    /// Single-sample scores when the CPU budget was spent.
    at_budget: Option<Scores>,
}

/// The ways of a group of runs.
#[derive(Clone, Debug, PartialEq)]
struct WayShares {
    /// Mean share of each way over seeds, for single samples and for the greedy choice.
    single: BTreeMap<String, f64>,
    greedy: BTreeMap<String, f64>,
    /// Seeds of which single samples use two ways or more, of how many.
    several: usize,
    of: usize,
}

impl Line {
    fn of(group: &Group, extras: &Extras) -> Self {
        let values = |score: &dyn Fn(&Run) -> f64| group.scores(score).into_iter().map(|(_, x)| x).collect::<Vec<_>>();
        let single = values(&Run::single);
        let below = extras
            .threshold
            .filter(|_| !single.is_empty())
            .map(|threshold| single.iter().filter(|score| **score < threshold).count() as f64 / single.len() as f64);
        Self {
            single: Scores::of(&single),
            greedy: Scores::of(&values(&Run::greedy)),
            cpu_seconds: Scores::of(&values(&Run::cpu_seconds)),
            ways: WayShares::of(&group.runs),
            difference: difference(group, &extras.baseline),
            below,
            at_budget: extras.cpu_budget.map(|spent| Scores::of(&values(&|run| single_at_cpu(run, spent)))),
        }
    }
}

/// Paired differences with the baseline of the same environment; none where no seed is in both.
fn difference(group: &Group, baseline: &[Group]) -> Option<Scores> {
    let same = |other: &&Group| other.env == group.env && other.algo == group.algo;
    let known: BTreeMap<u64, f64> = baseline
        .iter()
        .find(same)
        .or_else(|| baseline.iter().find(|g| g.env == group.env))?
        .scores(Run::single)
        .into_iter()
        .collect();
    let own = group.scores(Run::single);
    let pairs: Vec<f64> = own.iter().filter_map(|(seed, score)| Some(score - known.get(seed)?)).collect();
    (!pairs.is_empty()).then(|| Scores::of(&pairs))
}

impl WayShares {
    /// None where no run has ways.
    fn of(runs: &[Run]) -> Option<Self> {
        let ways: Vec<_> = runs.iter().filter_map(|run| run.evaluation.as_ref()?.ways.as_ref()).collect();
        if ways.is_empty() {
            return None;
        }
        let mean = |shares: Vec<&BTreeMap<String, f64>>| {
            let mut sum: BTreeMap<String, f64> = BTreeMap::new();
            for (label, share) in shares.iter().flat_map(|shares| shares.iter()) {
                *sum.entry(label.clone()).or_default() += share / shares.len() as f64;
            }
            sum
        };
        let uses_several = |shares: &BTreeMap<String, f64>| {
            shares.iter().filter(|(label, share)| *label != NO_WAY && **share >= USED).count() > 1
        };
        Some(Self {
            single: mean(ways.iter().map(|w| &w.single).collect()),
            greedy: mean(ways.iter().filter_map(|w| w.greedy.as_ref()).collect()),
            several: ways.iter().filter(|w| uses_several(&w.single)).count(),
            of: ways.len(),
        })
    }

    fn text(&self) -> String {
        let shares = |ways: &BTreeMap<String, f64>| {
            let parts: Vec<String> =
                ways.iter().map(|(label, share)| format!("{label} {:.0} %", 100.0 * share)).collect();
            parts.join(", ")
        };
        let greedy = if self.greedy.is_empty() { String::new() } else { format!("; greedy: {}", shares(&self.greedy)) };
        format!("{}{greedy}; several ways in {} of {} seeds", shares(&self.single), self.several, self.of)
    }
}

/// The report as Markdown.
pub fn markdown(groups: &[Group], extras: &Extras) -> String {
    let lines: Vec<Line> = groups.iter().map(|group| Line::of(group, extras)).collect();
    let ways = lines.iter().any(|line| line.ways.is_some());
    let (compared, threshold) = (!extras.baseline.is_empty(), extras.threshold);
    let mut head = vec![
        "environment".to_string(),
        "algorithm".into(),
        "seeds".into(),
        "single sample: mean".into(),
        "IQM".into(),
        "lowest, highest seed".into(),
        "greedy: mean".into(),
        "IQM".into(),
        "lowest, highest seed".into(),
    ];
    if compared {
        head.push("difference to the baseline".into());
    }
    if let Some(threshold) = threshold {
        head.push(format!("seeds below {threshold}"));
    }
    if let Some(spent) = extras.cpu_budget {
        head.push(format!("single sample at {spent} CPU-seconds"));
    }
    head.extend(["control steps", "updates", "CPU-seconds a seed"].map(String::from));
    if ways {
        head.push("ways".into());
    }
    let mut out = String::new();
    row(&mut out, &head);
    row(&mut out, &vec!["---".to_string(); head.len()]);
    for (group, line) in groups.iter().zip(&lines) {
        let unfinished = group.runs.iter().filter(|run| !run.finished()).count();
        let seeds = match unfinished {
            0 => group.runs.len().to_string(),
            some => format!("{} ({some} unfinished)", group.runs.len()),
        };
        let mut cells = vec![group.env.clone(), group.name(), seeds];
        for scores in [&line.single, &line.greedy] {
            let digits = digits(scores);
            cells.push(with_interval(scores.mean, scores.mean_interval, digits));
            cells.push(with_interval(scores.iqm, scores.iqm_interval, digits));
            cells.push(match scores.n {
                0 => "-".into(),
                _ => format!("{:.digits$}, {:.digits$}", scores.min, scores.max),
            });
        }
        if compared {
            cells.push(line.difference.map_or("-".into(), |d| with_interval(d.mean, d.mean_interval, digits(&d))));
        }
        if threshold.is_some() {
            cells.push(line.below.map_or("-".into(), |share| format!("{:.0} %", 100.0 * share)));
        }
        cells.extend(line.at_budget.map(|s| with_interval(s.mean, s.mean_interval, digits(&s))));
        cells.push(range(&group.scores(Run::timesteps), 0));
        cells.push(range(&group.scores(Run::updates), 0));
        let cpu = &line.cpu_seconds;
        cells.push(range(&group.scores(Run::cpu_seconds), usize::from(cpu.mean < 100.0)));
        if ways {
            cells.push(line.ways.as_ref().map_or("-".into(), WayShares::text));
        }
        row(&mut out, &cells);
    }
    out.push_str(
        "\nIn brackets: 95 % percentile bootstrap intervals over seeds. IQM: interquartile mean. The score of a seed is \
         its mean return over the evaluation episodes.\n",
    );
    if ways {
        let _ = writeln!(out, "A way counts as used from {:.0} % of a seed's episodes on.", 100.0 * USED);
    }
    for run in groups.iter().flat_map(|group| &group.runs).filter(|run| !run.finished()) {
        let _ = writeln!(
            out,
            "Unfinished: {}, counted as it stood at {:.0} control steps.",
            run.path.display(),
            run.timesteps()
        );
    }
    over_all(&mut out, groups);
    out
}

fn row(out: &mut String, cells: &[String]) {
    // A bar in a label would begin a cell.
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    let _ = writeln!(out, "| {} |", cells.join(" | "));
}

/// Decimals for numbers of the size of these scores.
fn digits(scores: &Scores) -> usize {
    let size = scores.min.abs().max(scores.max.abs());
    match size {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    }
}

fn with_interval(value: f64, interval: Interval, digits: usize) -> String {
    if !value.is_finite() {
        return "-".into();
    }
    if !interval.is_known() {
        return format!("{value:.digits$}");
    }
    format!("{value:.digits$} [{:.digits$}, {:.digits$}]", interval.low, interval.high)
}

/// One number, or the lowest to the highest.
fn range(scores: &[(u64, f64)], digits: usize) -> String {
    let values = scores.iter().map(|(_, x)| *x);
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
    if low > high {
        return "-".into();
    }
    let (low, high) = (format!("{low:.digits$}"), format!("{high:.digits$}"));
    if low == high { low } else { format!("{low} to {high}") }
}

/// Names of the series that are there on every environment, with their scores on the common scale, one list each
/// environment. Empty with fewer than two environments.
fn normalised(groups: &[Group]) -> Vec<(String, Vec<Vec<f64>>)> {
    let envs: BTreeSet<&str> = groups.iter().map(|group| group.env.as_str()).collect();
    if envs.len() < 2 {
        return Vec::new();
    }
    let span = |env: &str| {
        let all = groups.iter().filter(|group| group.env == env).flat_map(|group| group.scores(Run::single));
        let all = all.map(|(_, x)| x);
        all.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)))
    };
    // Without a spread there is no scale.
    let spans: Vec<(&str, f64, f64)> =
        envs.iter().map(|env| (*env, span(env))).map(|(env, (low, high))| (env, low, high)).collect();
    if spans.iter().any(|(_, low, high)| low >= high) {
        return Vec::new();
    }
    let mut names: Vec<String> = Vec::new();
    for group in groups {
        if !names.contains(&group.name()) {
            names.push(group.name());
        }
    }
    let scores_of = |name: String| {
        let strata: Option<Vec<Vec<f64>>> = spans
            .iter()
            .map(|(env, low, high)| {
                let group = groups.iter().find(|group| group.env == *env && group.name() == name)?;
                let scores = group.scores(Run::single);
                (!scores.is_empty()).then(|| scores.iter().map(|(_, x)| (x - low) / (high - low)).collect())
            })
            .collect();
        strata.map(|strata| (name, strata))
    };
    names.into_iter().filter_map(scores_of).collect()
}

fn stratified(strata: &[Vec<f64>]) -> Scores {
    let strata: Vec<&[f64]> = strata.iter().map(Vec::as_slice).collect();
    Scores::stratified(&strata, Bootstrap::default())
}

/// The table over all environments, where there is one.
fn over_all(out: &mut String, groups: &[Group]) {
    let all = normalised(groups);
    if all.len() < 2 {
        return;
    }
    out.push_str(
        "\nOver all environments, single samples, on a scale where 0 and 1 are the lowest and the highest seed of any \
         algorithm on that environment; environments are the strata of the bootstrap:\n\n",
    );
    row(out, &["algorithm", "runs", "mean", "IQM"].map(String::from));
    row(out, &vec!["---".to_string(); 4]);
    for (name, strata) in all {
        let scores = stratified(&strata);
        let (mean, iqm) =
            (with_interval(scores.mean, scores.mean_interval, 3), with_interval(scores.iqm, scores.iqm_interval, 3));
        row(out, &[name, scores.n.to_string(), mean, iqm]);
    }
}

/// The report as JSON: `groups`, and `all_environments` where there are several.
pub fn object(groups: &[Group], extras: &Extras) -> Value {
    let group_object = |group: &Group| {
        let line = Line::of(group, extras);
        let by_seed = |score: fn(&Run) -> f64| -> Map<String, Value> {
            group.scores(score).into_iter().map(|(seed, x)| (seed.to_string(), json!(x))).collect()
        };
        let mean = |score: fn(&Run) -> f64| {
            let scores = group.scores(score);
            (!scores.is_empty()).then(|| scores.iter().map(|(_, x)| x).sum::<f64>() / scores.len() as f64)
        };
        let unfinished: Vec<_> = group.runs.iter().filter(|run| !run.finished()).map(|run| &run.path).collect();
        json!({
            "env": group.env,
            "algo": group.algo,
            "label": group.label,
            "seeds": group.runs.iter().map(|run| run.seed).collect::<Vec<_>>(),
            "runs": group.runs.iter().map(|run| &run.path).collect::<Vec<_>>(),
            "unfinished": unfinished,
            "single": scores_object(&line.single),
            "greedy": scores_object(&line.greedy),
            "single_by_seed": by_seed(Run::single),
            "greedy_by_seed": by_seed(Run::greedy),
            "timesteps": mean(Run::timesteps),
            "updates": mean(Run::updates),
            "cpu_seconds": scores_object(&line.cpu_seconds),
            "difference": line.difference.as_ref().map(scores_object),
            "below_threshold": line.below,
            "single_at_cpu_seconds": line.at_budget.as_ref().map(scores_object),
            "ways": line.ways.map(|ways| json!({
                "single": ways.single, "greedy": ways.greedy, "several_ways": ways.several, "of": ways.of,
            })),
            "settings": group.runs.first().map(|run| &run.settings),
        })
    };
    let all: Vec<Value> = normalised(groups)
        .iter()
        .map(|(name, strata)| json!({ "name": name, "scores": scores_object(&stratified(strata)) }))
        .collect();
    json!({
        "threshold": extras.threshold,
        "groups": groups.iter().map(group_object).collect::<Vec<_>>(),
        "all_environments": all,
    })
}

/// Scores as JSON; null where nothing is known.
pub fn scores_object(scores: &Scores) -> Value {
    if scores.n == 0 {
        return Value::Null;
    }
    let interval = |interval: Interval| interval.is_known().then_some([interval.low, interval.high]);
    json!({
        "n": scores.n,
        "mean": scores.mean,
        "mean_ci95": interval(scores.mean_interval),
        "iqm": scores.iqm,
        "iqm_ci95": interval(scores.iqm_interval),
        "min": scores.min,
        "max": scores.max,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture::{Fixture, evaluation_json, progress};
    use crate::report::group::group;
    use crate::report::load::load;

    fn groups(all: &Fixture) -> Vec<Group> {
        group(load(&[all.path("")]).unwrap().runs).0
    }

    fn approximately(value: &Value, wanted: f64) {
        assert!((value.as_f64().unwrap() - wanted).abs() < 1e-9, "{value} against {wanted}");
    }

    #[test]
    fn a_table_worked_by_hand() {
        let all = Fixture::new();
        // Scores -110, -120, -130, -140.
        for seed in 1..=4 {
            all.run(&format!("a/seed-{seed}"), "fork", "rfm", seed);
        }
        all.run("b", "fork", "sac", 1);
        let text = markdown(&groups(&all), &Extras::default());
        let lines: Vec<&str> = text.lines().collect();
        let cells: Vec<&str> = lines[2].split('|').map(str::trim).collect();
        assert_eq!(cells[1..4], ["fork", "rfm", "4"]);
        assert!(cells[4].starts_with("-125 [-1") && cells[5].starts_with("-125 [-1"), "{text}");
        assert_eq!(cells[6], "-140, -110");
        assert!(cells[7].starts_with("-120 [") && cells[9] == "-135, -105", "{text}");
        assert_eq!(cells[10..13], ["5000", "4000", "2.5"]);
        assert_eq!(cells[13], "left 40 %, right 60 %; greedy: left 100 %; several ways in 4 of 4 seeds");
        // One seed has no interval.
        assert!(lines[3].contains("| fork | sac | 1 | -110 | -110 | -110, -110 |"), "{text}");
        assert!(lines.iter().take(4).all(|line| line.matches('|').count() == 14), "{text}");
    }

    #[test]
    fn differences_are_paired_by_seed() {
        let all = Fixture::new();
        for seed in 1..=3 {
            all.run(&format!("a/seed-{seed}"), "pendulum", "rfm", seed);
            all.run_with(&format!("b/seed-{seed}"), "pendulum", "rfm", seed, &[("gamma", "0.9")]);
            // Better by exactly 40 on every seed, though seeds differ by 10 and more.
            all.file(
                &format!("b/seed-{seed}/evaluation.json"),
                &evaluation_json(seed).replace(
                    &format!("\"single\":{{\"mean\":{}", -100.0 - 10.0 * seed as f64),
                    &format!("\"single\":{{\"mean\":{}", -60.0 - 10.0 * seed as f64),
                ),
            );
        }
        all.run_with("b/seed-9", "pendulum", "rfm", 9, &[("gamma", "0.9")]);
        let load = |name: &str| group(load(&[all.path(name)]).unwrap().runs).0;
        let extras = Extras { baseline: load("a"), threshold: Some(-85.0), ..Extras::default() };
        let report = object(&load("b"), &extras);
        let found = &report["groups"][0];
        assert_eq!(found["difference"]["n"], 3);
        approximately(&found["difference"]["mean"], 40.0);
        approximately(&found["difference"]["mean_ci95"][0], 40.0);
        // -70, -80, -90 and -190.
        approximately(&found["below_threshold"], 0.5);
        approximately(&found["single"]["min"], -190.0);
        let text = markdown(&load("b"), &extras);
        assert!(
            text.contains("40.0 [40.0, 40.0]") && text.contains("seeds below -85") && text.contains("| 50 % |"),
            "{text}"
        );
        // No baseline of that environment: nothing to compare.
        all.run("c", "cartpole", "rfm", 1);
        assert!(object(&load("c"), &extras)["groups"][0]["difference"].is_null());
    }

    #[test]
    fn a_cpu_budget_is_read_off_the_curves() {
        let all = Fixture::new();
        for (seed, curve) in [(1, [(0.0, 2.0, 100.0), (9.0, 8.0, 400.0)]), (2, [(0.0, 0.0, 10.0), (9.0, 4.0, 75.0)])] {
            all.run(&format!("a/seed-{seed}"), "fork", "rfm", seed);
            all.file(&format!("a/seed-{seed}/progress.csv"), &progress(&curve));
        }
        let at = |spent| Extras { cpu_budget: Some(spent), ..Extras::default() };
        let told = |spent| object(&groups(&all), &at(spent))["groups"][0]["single_at_cpu_seconds"].clone();
        // Half of the way from 100 to 400, and what the finished other one has.
        approximately(&told(5.0)["min"], 75.0);
        approximately(&told(5.0)["max"], 250.0);
        let text = markdown(&groups(&all), &at(5.0));
        assert!(text.contains("| single sample at 5 CPU-seconds |") && text.contains("| 162 [75, 250] |"), "{text}");
        // The first had measured nothing yet.
        assert_eq!((&told(1.0)["n"], &told(1.0)["mean"]), (&json!(1), &json!(26.25)));
        // Of one that is not finished nothing is known after its end.
        std::fs::remove_file(all.path("a/seed-2/evaluation.json")).unwrap();
        assert_eq!(told(5.0)["n"], 1);
        assert!(object(&groups(&all), &Extras::default())["groups"][0]["single_at_cpu_seconds"].is_null());
    }

    #[test]
    fn unfinished_runs_are_named_and_what_is_unknown_is_a_dash() {
        let all = Fixture::new();
        all.run("a/seed-1", "pendulum", "sac", 1);
        all.run("a/seed-2", "pendulum", "sac", 2);
        std::fs::remove_file(all.path("a/seed-2/evaluation.json")).unwrap();
        let csv = "timesteps,return_mean\n0,-1200\n2000,-800\n";
        all.file("a/seed-2/progress.csv", csv);
        let text = markdown(&groups(&all), &Extras::default());
        assert!(text.contains("2 (1 unfinished)") && text.contains("seed-2, counted as it stood at 2000"), "{text}");
        std::fs::remove_dir_all(all.path("a/seed-1")).unwrap();
        let text = markdown(&groups(&all), &Extras::default());
        assert!(text.contains("| -800 | -800 | -800, -800 | - | - | - | 2000 | - | - |"), "{text}");
        let report = object(&groups(&all), &Extras::default());
        assert!(report["groups"][0]["greedy"].is_null() && report["groups"][0]["cpu_seconds"].is_null());
    }

    #[test]
    fn over_all_environments_scores_share_a_scale() {
        let all = Fixture::new();
        for env in ["pendulum", "cartpole"] {
            for (algo, seeds) in [("rfm", [0, 1]), ("sac", [3, 4])] {
                for seed in seeds {
                    all.run(&format!("{env}/{algo}/seed-{seed}"), env, algo, seed);
                }
            }
        }
        // Scores -100, -110 and -130, -140: 1, 0.75 and 0.25, 0.
        let report = object(&groups(&all), &Extras::default());
        approximately(&report["all_environments"][0]["scores"]["mean"], 0.875);
        approximately(&report["all_environments"][1]["scores"]["mean"], 0.125);
        assert_eq!(report["all_environments"][0]["scores"]["n"], 4);
        assert!(markdown(&groups(&all), &Extras::default()).contains("| rfm | 4 | 0.875 [0.750, 1.000] |"));
        // An algorithm that lacks an environment is not compared over all.
        std::fs::remove_dir_all(all.path("cartpole/sac")).unwrap();
        assert_eq!(object(&groups(&all), &Extras::default())["all_environments"].as_array().unwrap().len(), 1);
    }
}
