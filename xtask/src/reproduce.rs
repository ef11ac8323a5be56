//! `cargo xtask reproduce`: trainings on the Control Suite's tasks, over algorithms, presets and seeds.
//!
//! Every training is a folder under `runs/reproduce`, `TASK__ALGO__PRESET__STEPS/seed-N`; what is finished there is
//! kept and what was broken off goes on, so the same command, or one with more seeds or tasks, continues
//! ([`Campaign`]). It says what is left and about how long that will take, and writes a table and the learning curves
//! beside the runs. Seeds come before tasks: stopped at any time, what is there is a table of fewer seeds.

use crate::campaign::{Campaign, Setting, Trainer};
use crate::test::SUITE;
use crate::{WrongUse, mujoco, suite_results};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// The eight tasks on which the method was published.
const TASKS: [&str; 8] = [
    "cartpole-swingup",
    "finger-spin",
    "cheetah-run",
    "walker-walk",
    "walker-run",
    "fish-upright",
    "fish-swim",
    "finger-turn_hard",
];

/// `cargo xtask reproduce`.
#[derive(clap::Args)]
pub struct Options {
    /// Tasks [default: the eight on which the method was published]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    tasks: Vec<String>,
    /// Algorithms
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_value = "rfm,sac")]
    algos: Vec<String>,
    /// Constants: default, paper
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_value = "default")]
    presets: Vec<String>,
    /// Seeds of each, from 1
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    /// Control steps of each
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
    /// A key of config.toml for all of them, for example rfm.actor_hidden=128; may be repeated, and then give --out, too
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Trainings side by side [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: Option<u16>,
    /// Folder of the runs
    #[arg(long, value_name = "DIR", default_value = "runs/reproduce")]
    out: PathBuf,
    /// Train nothing: table and curves of the runs that are there
    #[arg(long)]
    no_training: bool,
    /// Write the Control Suite's part of docs/results.md from all settings in the folder of the runs
    #[arg(long)]
    document: bool,
}

/// Trains what is missing; table and curves.
pub fn run(root: &Path, options: &Options) -> Result<u8> {
    mujoco::fetch(root)?;
    let trainer = Trainer::build_with(root, &SUITE)?;
    let listed = trainer.json(&["envs"])?;
    let known: Vec<&str> =
        listed["envs"].as_array().into_iter().flatten().filter_map(|env| env["name"].as_str()).collect();
    let campaign = plan(options, &known)?;
    let failures = campaign.run(&trainer, options.jobs, !options.no_training)?;
    // Whatever is there, the trainings of a campaign that was stopped included.
    let begun = |setting: &&Setting| {
        let own = |(folder, of, _): &(PathBuf, &Setting, u64)| {
            of == setting && root.join(folder).join("progress.csv").is_file()
        };
        campaign.trainings().iter().any(own)
    };
    let seen: Vec<String> = campaign
        .settings
        .iter()
        .filter(begun)
        .map(|setting| campaign.folder(setting).to_string_lossy().into_owned())
        .collect();
    if !seen.is_empty() {
        let at = |name: &str| options.out.join(name).to_string_lossy().into_owned();
        let with = |words: &[&str]| words.iter().map(ToString::to_string).chain(seen.clone()).collect::<Vec<_>>();
        trainer.json(&with(&["report", "--out", &at("table.md")]))?;
        trainer.json(&with(&["plot", "--out", &at("single.svg"), "--metric", "single"]))?;
        let table = root.join(at("table.md"));
        println!("{}", std::fs::read_to_string(&table).with_context(|| format!("cannot read {}", table.display()))?);
    }
    if options.document {
        suite_results::write(root, &trainer, &options.out, &TASKS)?;
    }
    for failure in &failures {
        println!("failed: {failure}");
    }
    println!("{}", root.join(&options.out).display());
    Ok(u8::from(!failures.is_empty()))
}

/// The settings, each with its folder.
fn plan(options: &Options, known: &[&str]) -> Result<Campaign> {
    let tasks: Vec<&str> =
        if options.tasks.is_empty() { TASKS.to_vec() } else { options.tasks.iter().map(String::as_str).collect() };
    if let Some(unknown) = tasks.iter().find(|task| !known.contains(task)) {
        return Err(WrongUse(format!("--tasks {unknown}: use some of {}", known.join(","))).into());
    }
    let mut settings = Vec::new();
    for task in tasks {
        for (algo, preset) in options.algos.iter().flat_map(|a| options.presets.iter().map(move |p| (a, p))) {
            let steps = options.steps.to_string();
            let words = ["--env", task, "--algo", algo, "--preset", preset, "--total-timesteps", &steps];
            let mut arguments: Vec<String> = words.map(String::from).to_vec();
            arguments.extend(options.set.iter().flat_map(|pair| ["--set".to_string(), pair.clone()]));
            settings.push(Setting { name: format!("{task}__{algo}__{preset}__{steps}"), arguments });
        }
    }
    Ok(Campaign { out: options.out.clone(), settings, first_seed: 1, seeds: options.seeds })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn options(words: &str) -> Options {
        Line::parse_from(std::iter::once("reproduce").chain(words.split_whitespace())).options
    }

    #[test]
    fn seeds_come_before_tasks_and_settings_keep_their_folders() {
        let asked = options("--seeds 2 --steps 5000 --presets default,paper --set rfm.gamma=0.9");
        let campaign = plan(&asked, &TASKS).unwrap();
        let trainings = campaign.trainings();
        assert_eq!((campaign.settings.len(), trainings.len()), (8 * 2 * 2, 8 * 2 * 2 * 2));
        assert!(trainings[..32].iter().all(|t| t.2 == 1) && trainings[32..].iter().all(|t| t.2 == 2));
        let (folder, setting, _) = &trainings[0];
        assert_eq!(folder, Path::new("runs/reproduce/cartpole-swingup__rfm__default__5000/seed-1"));
        assert_eq!(
            setting.arguments.join(" "),
            "--env cartpole-swingup --algo rfm --preset default --total-timesteps 5000 --set rfm.gamma=0.9"
        );
        // More seeds of the same settings go into the same folders.
        let more =
            plan(&options("--seeds 5 --steps 5000 --presets default,paper --set rfm.gamma=0.9"), &TASKS).unwrap();
        assert_eq!(more.settings, campaign.settings);
        let unknown = plan(&options("--tasks cheetah-jump"), &TASKS).unwrap_err();
        assert!(unknown.is::<WrongUse>() && unknown.to_string().contains("fish-swim"), "{unknown}");
    }
}
