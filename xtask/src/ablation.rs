//! Variants of the default agent against it, paired by seed: trains what is missing and writes `docs/ablation.md`.
//!
//! The variants are in `xtask/ablation.toml`. Each trains on the same seeds as the default, and what is reported is the
//! mean difference of the seeds' scores, so that what a seed makes easy or hard for both drops out.

use crate::campaign::{Campaign, Setting, Trainer};
use crate::document::{self, number};
use crate::{WrongUse, results};
use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// `cargo xtask ablation`.
#[derive(clap::Args)]
pub struct Options {
    /// Seeds of each variant, from 1
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    /// Trainings side by side [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: Option<u16>,
    /// Environments
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_value = "pendulum,cartpole")]
    envs: Vec<String>,
    /// Only these variants, and the default [default: all of xtask/ablation.toml]
    #[arg(long, value_name = "NAME", num_args = 1.., value_delimiter = ',')]
    only: Vec<String>,
    /// Control steps, as a factor on each environment's default; other than 1 for a trial
    #[arg(long, default_value_t = 1.0, value_name = "F")]
    scale: f64,
    /// Folder of the runs [default: runs/ablation, with the scale in its name where it is not 1]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Where to write ablation.md [default: docs; for a scale other than 1 or --only the folder of the runs]
    #[arg(long, value_name = "DIR")]
    docs: Option<PathBuf>,
    /// Train nothing: write the document from the runs that are there
    #[arg(long)]
    no_training: bool,
}

/// `xtask/ablation.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plan {
    /// Environment -> the return below which a seed has failed.
    thresholds: BTreeMap<String, f64>,
    /// Environment -> control steps of a training; where there is none, the environment's own.
    #[serde(default)]
    steps: BTreeMap<String, u64>,
    /// `--set` options of the default and of every variant.
    #[serde(default)]
    common: Vec<String>,
    variant: Vec<Variant>,
}

/// One change of the default agent.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Variant {
    /// What it is called; a folder is named so.
    name: String,
    /// What it is to show.
    why: String,
    /// Its `--set` options.
    set: Vec<String>,
}

/// The folder name of the default agent.
const DEFAULT: &str = "default";

impl Plan {
    fn parse(text: &str) -> Result<Self> {
        let plan: Self = toml::from_str(text).map_err(|e| {
            let message = e.message().replace('\n', ", ");
            WrongUse(format!("xtask/ablation.toml: {message}: a variant has name, why and set"))
        })?;
        let mut names = BTreeSet::from([DEFAULT]);
        for variant in &plan.variant {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if variant.name.is_empty() || !variant.name.chars().all(plain) {
                let what = "give it a name of letters, digits, `-`, `_` and `.`";
                return Err(WrongUse(format!("xtask/ablation.toml: variant {:?}: {what}", variant.name)).into());
            }
            if !names.insert(&variant.name) {
                return Err(WrongUse(format!("xtask/ablation.toml: the name {} is taken twice", variant.name)).into());
            }
        }
        Ok(plan)
    }

    /// The variants of the given names, all where none is given.
    fn chosen(&self, only: &[String]) -> Result<Vec<Variant>> {
        let known = |name: &&String| !self.variant.iter().any(|variant| variant.name == **name);
        if let Some(unknown) = only.iter().find(known) {
            let names: Vec<&str> = self.variant.iter().map(|variant| variant.name.as_str()).collect();
            return Err(WrongUse(format!("--only {unknown}: use some of {}", names.join(", "))).into());
        }
        let wanted = |variant: &&Variant| only.is_empty() || only.contains(&variant.name);
        Ok(self.variant.iter().filter(wanted).cloned().collect())
    }
}

/// Trains and writes.
pub fn run(root: &Path, options: &Options) -> Result<u8> {
    let path = root.join("xtask/ablation.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let plan = Plan::parse(&text)?;
    let variants = plan.chosen(&options.only)?;
    results::check_scale(options.scale)?;
    let trainer = Trainer::build(root)?;
    let whole = options.scale == 1.0;
    let name = if whole { "runs/ablation".to_string() } else { format!("runs/ablation-{}", options.scale) };
    let out = options.out.clone().unwrap_or_else(|| name.into());
    let complete = whole && options.only.is_empty();
    let docs = options.docs.clone().unwrap_or_else(|| if complete { "docs".into() } else { out.clone() });
    let mut steps = if whole { BTreeMap::new() } else { results::scaled_steps(&trainer, options.scale)? };
    for (env, own) in &plan.steps {
        steps.insert(env.clone(), (*own as f64 * options.scale).round() as u64);
    }

    let default = Variant { name: DEFAULT.into(), why: String::new(), set: Vec::new() };
    let mut settings = Vec::new();
    for env in &options.envs {
        for variant in std::iter::once(&default).chain(&variants) {
            let mut arguments: Vec<String> = ["--env", env].map(String::from).to_vec();
            if let Some(steps) = steps.get(env) {
                arguments.extend(["--total-timesteps".into(), steps.to_string()]);
            }
            arguments.extend(plan.common.iter().chain(&variant.set).flat_map(|pair| ["--set".into(), pair.clone()]));
            settings.push(Setting { name: folder_name(env, variant), arguments });
        }
    }
    let campaign = Campaign { out: out.clone(), settings, first_seed: 1, seeds: options.seeds };
    let failures = campaign.run(&trainer, options.jobs, !options.no_training)?;

    let mut block = format!(
        "`cargo xtask ablation --seeds {} --envs {}{}` on {}. Variants and the default are trained on the same seeds. \
         Score of a seed: mean return of single samples over the evaluation episodes. Difference: variant minus default, \
         mean over seeds, with its 95 % bootstrap interval; bold where the interval leaves out 0, which with ten seeds one \
         variant in ten does by chance. IQM: interquartile mean.\n",
        options.seeds,
        options.envs.join(","),
        if whole { String::new() } else { format!(" --scale {}", options.scale) },
        document::machine()
    );
    for env in &options.envs {
        let threshold = plan.thresholds.get(env).copied();
        block.push_str(&section(root, &trainer, &out, env, threshold, &default, &variants)?);
    }
    document::write(
        &root.join(&docs).join("ablation.md"),
        "Ablations of the default agent",
        "cargo xtask ablation",
        &block,
    )?;
    for failure in &failures {
        println!("failed: {failure}");
    }
    println!("{}", root.join(&docs).join("ablation.md").display());
    Ok(u8::from(!failures.is_empty()))
}

/// The folder with the seeds of a variant.
fn folder_name(env: &str, variant: &Variant) -> String {
    format!("{env}__{}", variant.name)
}

/// The table of one environment.
fn section(
    root: &Path,
    trainer: &Trainer,
    out: &Path,
    env: &str,
    threshold: Option<f64>,
    default: &Variant,
    variants: &[Variant],
) -> Result<String> {
    let baseline = out.join(folder_name(env, default)).to_string_lossy().into_owned();
    let mut text = format!("\n## {env}\n\n");
    let below = threshold.map_or_else(|| "failures".to_string(), |t| format!("seeds below {t}"));
    let head = ["variant", "set", "seeds", "mean", "difference", "IQM", "lowest seed", &below, "CPU-seconds", "why"];
    text.push_str(&document::row(&head));
    text.push_str(&document::row(&["---"; 10]));
    for variant in std::iter::once(default).chain(variants) {
        let own = out.join(folder_name(env, variant)).to_string_lossy().into_owned();
        let mut words = vec!["report".to_string(), own.clone()];
        if variant.name != DEFAULT {
            words.extend(["--baseline".into(), baseline.clone()]);
        }
        if let Some(threshold) = threshold {
            words.push(format!("--threshold={threshold}"));
        }
        let trained = fs::read_dir(root.join(&own)).is_ok_and(|mut entries| {
            entries.any(|entry| entry.is_ok_and(|entry| entry.path().join("progress.csv").is_file()))
        });
        let group = if trained {
            let report = trainer.json(&words)?;
            let groups = report["groups"].as_array().context("`host-train report --json` has no groups")?;
            results::one_setting_each(groups)?;
            groups.first().cloned().unwrap_or_default()
        } else {
            Value::Null
        };
        text.push_str(&line(variant, &group));
    }
    Ok(text)
}

/// The row of one variant.
fn line(variant: &Variant, group: &Value) -> String {
    let value = |value: &Value| value.as_f64().map_or("-".to_string(), number);
    let with_interval = |scores: &Value, what: &str| {
        let ends = &scores[format!("{what}_ci95")];
        match (scores[what].as_f64(), ends[0].as_f64(), ends[1].as_f64()) {
            (Some(x), Some(low), Some(high)) => format!("{} [{}, {}]", number(x), number(low), number(high)),
            (x, ..) => x.map_or("-".into(), number),
        }
    };
    let (single, difference) = (&group["single"], &group["difference"]);
    let ends = &difference["mean_ci95"];
    let leaves_out_0 = ends[0].as_f64().is_some_and(|low| low > 0.0) || ends[1].as_f64().is_some_and(|high| high < 0.0);
    let difference = with_interval(difference, "mean");
    let unfinished = group["unfinished"].as_array().map_or(0, Vec::len);
    let mut seeds = group["seeds"].as_array().map_or(0, Vec::len).to_string();
    if unfinished > 0 {
        // Writing into a String cannot fail.
        let _ = write!(seeds, " ({unfinished} unfinished)");
    }
    let set = variant.set.iter().map(|pair| format!("`{pair}`")).collect::<Vec<_>>().join(" ");
    document::row(&[
        variant.name.clone(),
        set,
        seeds,
        value(&single["mean"]),
        if leaves_out_0 { format!("**{difference}**") } else { difference },
        with_interval(single, "iqm"),
        value(&single["min"]),
        group["below_threshold"].as_f64().map_or("-".into(), |share| format!("{:.0} %", 100.0 * share)),
        value(&group["cpu_seconds"]["mean"]),
        variant.why.clone(),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_plan_of_the_repository_is_sound() {
        let plan = Plan::parse(include_str!("../ablation.toml")).unwrap();
        assert!(plan.variant.len() >= 10 && plan.variant.iter().all(|v| !v.set.is_empty() && !v.why.is_empty()));
        assert!(plan.variant.iter().flat_map(|v| &v.set).all(|pair| pair.contains('=')));
        let one = plan.variant[0].name.clone();
        assert_eq!(plan.chosen(std::slice::from_ref(&one)).unwrap().len(), 1);
        assert_eq!(plan.chosen(&[]).unwrap().len(), plan.variant.len());
        assert!(plan.chosen(&["tua".into()]).unwrap_err().to_string().contains(&one));
    }

    #[test]
    fn a_wrong_plan_is_wrong_use() {
        for (text, words) in [
            ("[thresholds]\n[[variant]]\nname = \"a b\"\nwhy = \"\"\nset = []\n", "give it a name"),
            ("[thresholds]\n[[variant]]\nname = \"default\"\nwhy = \"\"\nset = []\n", "default is taken twice"),
            ("[thresholds]\n[[variant]]\nname = \"a\"\nset = []\n", "missing field `why`"),
        ] {
            let error = Plan::parse(text).unwrap_err();
            assert!(error.is::<WrongUse>() && error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn a_row_is_bold_where_the_interval_leaves_out_zero() {
        let variant = Variant { name: "tau".into(), why: "slower targets".into(), set: vec!["rfm.tau=0.01".into()] };
        let group = |low: f64| {
            json!({
                "seeds": [1, 2], "unfinished": ["x"], "cpu_seconds": { "mean": 5.25 }, "below_threshold": 0.5,
                "single": { "mean": -180.0, "iqm": -170.0, "iqm_ci95": [-190.0, -160.0], "min": -200.0 },
                "difference": { "mean": 3.0, "mean_ci95": [low, 5.0] },
            })
        };
        let row = line(&variant, &group(1.0));
        let wanted = "| tau | `rfm.tau=0.01` | 2 (1 unfinished) | -180 | **3.00 [1.00, 5.00]** | -170 [-190, -160] | -200 | \
                      50 % | 5.25 | slower targets |\n";
        assert_eq!(row, wanted);
        assert!(line(&variant, &group(-1.0)).contains("| 3.00 [-1.00, 5.00] |"));
        assert!(line(&variant, &Value::Null).starts_with("| tau | `rfm.tau=0.01` | 0 | - | - | - | - | - | - |"));
    }
}
