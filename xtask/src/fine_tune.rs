//! Fine-tuning over plants and seeds: what the learner brings back, and what wrong rewards can do; writes `docs/fine-tuning.md`.
//!
//! Every case is a call of `host-train finetune --seeds`. What is there is kept, so a campaign that was stopped goes on where
//! it was; the results of another code must be removed by hand. The seeds are given by `--first-seed`: those of the committed
//! document were drawn after the code was fixed.

use crate::campaign::Trainer;
use crate::document::{self, number};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// `cargo xtask fine-tune`.
#[derive(clap::Args)]
pub struct Options {
    /// Seeds of each case
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=100))]
    seeds: u32,
    /// Seeds of each wrong reward
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=1000))]
    guard_seeds: u32,
    /// The first of both
    #[arg(long, default_value_t = 1, value_name = "N")]
    first_seed: u64,
    /// Folder of the runs
    #[arg(long, value_name = "DIR", default_value = "runs/fine-tune")]
    out: PathBuf,
    /// Where to write fine-tuning.md
    #[arg(long, value_name = "DIR", default_value = "docs")]
    docs: PathBuf,
}

/// A changed plant.
struct Case {
    name: &'static str,
    what: &'static str,
    policy: &'static str,
    set: &'static [&'static str],
    modes: &'static [&'static str],
}

const FURUTA: &str = "firmware/policies/furuta-critic.flw";

const CASES: [Case; 5] = [
    Case {
        name: "worn",
        what: "furuta, worn bearings (friction x 5)",
        policy: FURUTA,
        set: &["env.friction=5"],
        modes: &["adam", "lean", "last", "all"],
    },
    Case {
        name: "heavy-worn",
        what: "furuta, heavier arm, weaker motor, worn bearings (inertia x 1.4, torque x 0.7, friction x 4)",
        policy: FURUTA,
        set: &["env.arm_inertia=1.4", "env.motor_torque=0.7", "env.friction=4"],
        modes: &["adam"],
    },
    Case {
        name: "heavy",
        what: "furuta, heavier arm and weaker motor alone",
        policy: FURUTA,
        set: &["env.arm_inertia=1.4", "env.motor_torque=0.7"],
        modes: &["adam"],
    },
    Case {
        name: "bias",
        what: "furuta, pendulum's encoder off by 0.1 rad",
        policy: FURUTA,
        set: &["env.pendulum_offset=0.1"],
        modes: &["adam"],
    },
    Case {
        name: "cartpole",
        what: "cartpole, heavier pole (0.5 kg instead of 0.1; decisions of 40 ms, learned from each)",
        policy: "firmware/policies/cartpole-critic.flw",
        set: &["env.pole_mass=0.5", "finetune.every=1", "finetune.stride=2", "finetune.horizon=3", "finetune.first=7"],
        modes: &["adam"],
    },
];

/// The plants of the wrong rewards: one with something to gain, and the nominal one.
const GUARDED: [(&str, &[&str]); 2] = [("worn bearings", &["env.friction=5"]), ("nominal plant", &[])];

const REWARDS: [(&str, &str); 4] =
    [("task", "the task's"), ("flipped", "its negative"), ("constant", "constant"), ("nan", "not a number")];

/// Episodes of the first and the last evaluation: five times as many as given to the command.
const EPISODES: &str = "20";

/// Runs what is missing, writes the document.
pub fn run(root: &Path, options: &Options) -> Result<u8> {
    let trainer = Trainer::build(root)?;
    let mut text = String::new();
    let header = [
        "plant",
        "mode",
        "RAM, bytes",
        "factory",
        "from scratch",
        "after 15 min",
        "way back, % [95 %]",
        "worst seed, %",
    ];
    text += &(document::row(&header) + &document::row(&["---"; 8]));
    for case in &CASES {
        for mode in case.modes {
            let report = finetuned(root, &trainer, options, case, mode)?;
            text += &document::row(&cells(case.what, mode, &report)?);
            if *mode == "adam" {
                let picture = root.join(&options.docs).join(format!("fine-tuning/{}.svg", case.name));
                fs::create_dir_all(picture.parent().unwrap_or(root))?;
                let folder = root.join(options.out.join(format!("{}-{mode}", case.name)));
                fs::copy(folder.join("curve.svg"), &picture)
                    .with_context(|| format!("cannot copy the picture to {}", picture.display()))?;
            }
        }
    }
    let header =
        ["plant", "reward", "runs", "trials", "promotions", "worse than the factory's after it", "largest loss, %"];
    text += &format!("\n{}{}", document::row(&header), document::row(&["---"; 7]));
    for (plant, set) in GUARDED {
        for (reward, what) in REWARDS {
            let report = guarded(root, &trainer, options, set, reward)?;
            text += &document::row(&losses(plant, what, &report)?);
        }
    }
    let last = options.first_seed + u64::from(options.seeds) - 1;
    let last_guarded = options.first_seed + u64::from(options.guard_seeds) - 1;
    writeln!(
        text,
        "\n900 s of robot time, returns of 100 episodes with single samples, seeds {} to {last} (below {} to {last_guarded}). \
         *Factory* and *from scratch*: means over seeds; from scratch is `host-train train` for that plant with the defaults, a \
         training for each seed. *After*: the deployed policy of each seed. *Way back*: from the factory's return to the mean \
         from scratch, mean and Student's interval over seeds; none where the factory's policy returns more. *Worse*: promoted \
         policies whose return is below the factory's by more than both 95 % intervals of their means. *Largest loss*: of \
         the return of the deployed policy against the factory's in the same episodes.\n\n{}.",
        options.first_seed,
        options.first_seed,
        document::machine()
    )?;
    let command = format!(
        "cargo xtask fine-tune --seeds {} --guard-seeds {} --first-seed {}",
        options.seeds, options.guard_seeds, options.first_seed
    );
    document::write(&root.join(&options.docs).join("fine-tuning.md"), "Fine-tuning on the robot", &command, &text)?;
    println!("{}", root.join(&options.docs).join("fine-tuning.md").display());
    Ok(0)
}

/// The report of a case, from its folder or by a run.
fn finetuned(root: &Path, trainer: &Trainer, options: &Options, case: &Case, mode: &str) -> Result<Value> {
    let folder = options.out.join(format!("{}-{mode}", case.name));
    let mut words: Vec<String> = ["finetune", "--policy", case.policy, "--mode", mode].map(String::from).into();
    words.extend(case.set.iter().flat_map(|set| ["--set".to_string(), (*set).to_string()]));
    words.extend(["--scratch".to_string(), options.out.join("scratch").to_string_lossy().into_owned()]);
    report(root, trainer, &folder, words, (options.first_seed, options.seeds))
}

/// The same of a wrong reward.
fn guarded(root: &Path, trainer: &Trainer, options: &Options, set: &[&str], reward: &str) -> Result<Value> {
    let plant = if set.is_empty() { "nominal" } else { "worn" };
    let folder = options.out.join(format!("guard-{plant}-{reward}"));
    let mut words: Vec<String> = ["finetune", "--policy", FURUTA, "--without-scratch"].map(String::from).into();
    words.extend(set.iter().flat_map(|set| ["--set".to_string(), (*set).to_string()]));
    words.extend(["--set".to_string(), format!("finetune.reward={reward}")]);
    report(root, trainer, &folder, words, (options.first_seed, options.guard_seeds))
}

fn report(
    root: &Path,
    trainer: &Trainer,
    folder: &Path,
    mut words: Vec<String>,
    (first, seeds): (u64, u32),
) -> Result<Value> {
    let path = root.join(folder).join("finetune.json");
    if let Ok(text) = fs::read_to_string(&path) {
        let report: Value = serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))?;
        let wanted: Vec<Value> = (0..u64::from(seeds)).map(|i| Value::from(first + i)).collect();
        if report["seeds"].as_array() != Some(&wanted) {
            bail!("{} is of other seeds: remove its folder, or give another --out", path.display());
        }
        return Ok(report);
    }
    // What a run that was stopped left is not a result.
    if root.join(folder).exists() {
        fs::remove_dir_all(root.join(folder)).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    eprintln!("... {}", folder.display());
    let (seed, seeds, out) = (first.to_string(), seeds.to_string(), folder.to_string_lossy().into_owned());
    let more = ["--seed", &seed, "--seeds", &seeds, "--episodes", EPISODES, "--out", &out];
    words.extend(more.map(String::from));
    trainer.json(&words)
}

fn mean(value: &Value) -> Result<f64> {
    value["mean"].as_f64().context("a report without a mean")
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().map(|each| each.iter().filter_map(Value::as_f64).collect()).unwrap_or_default()
}

fn cells(what: &str, mode: &str, report: &Value) -> Result<[String; 8]> {
    let each: Vec<String> = numbers(&report["return_after"]["each"]).iter().map(|x| number(*x)).collect();
    let percent = |x: f64| format!("{:.0}", 100.0 * x);
    let shares = numbers(&report["recovered"]["each"]);
    let (way, worst) = if shares.is_empty() {
        ("none".to_string(), "-".to_string())
    } else {
        let (mean, half) = (mean(&report["recovered"])?, report["recovered"]["ci95"].as_f64().unwrap_or(f64::NAN));
        let worst = shares.iter().copied().fold(f64::INFINITY, f64::min);
        (format!("{} [{}, {}]", percent(mean), percent(mean - half), percent(mean + half)), percent(worst))
    };
    Ok([
        what.into(),
        mode.into(),
        report["ram_bytes"].as_u64().context("a report without ram_bytes")?.to_string(),
        number(mean(&report["return_before"])?),
        number(mean(&report["return_scratch"])?),
        each.join(", "),
        way,
        worst,
    ])
}

fn losses(plant: &str, what: &str, report: &Value) -> Result<[String; 7]> {
    let runs = report["runs"].as_array().context("a report without runs")?;
    let (mut trials, mut promotions, mut worse, mut largest) = (0, 0, 0, 0.0_f64);
    for run in runs {
        let of = |key: &str| run[key].as_f64().with_context(|| format!("a run without {key}"));
        let (before, after) = (of("return_before")?, of("return_after")?);
        trials += run["trials"].as_u64().unwrap_or(0);
        promotions += run["promoted"].as_u64().unwrap_or(0);
        worse += u64::from(after + of("return_after_ci95")? < before - of("return_before_ci95")?);
        largest = largest.max((before - after) / before.abs());
    }
    Ok([
        plant.into(),
        what.into(),
        runs.len().to_string(),
        trials.to_string(),
        promotions.to_string(),
        worse.to_string(),
        format!("{:.1}", 100.0 * largest),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_table_tells_the_worst_seed() {
        let report = json!({
            "ram_bytes": 90_000, "return_before": {"mean": 1000.0}, "return_scratch": {"mean": 2000.0},
            "return_after": {"each": [1900.0, 1400.0]}, "recovered": {"mean": 0.65, "ci95": 0.1, "each": [0.9, 0.4]},
        });
        let row = cells("worn", "adam", &report).unwrap();
        assert_eq!(row[2..], ["90000", "1000", "2000", "1900, 1400", "65 [55, 75]", "40"]);
        let none = json!({
            "ram_bytes": 1, "return_before": {"mean": 3.0}, "return_scratch": {"mean": 2.0},
            "return_after": {"each": [3.0]}, "recovered": null,
        });
        assert_eq!(cells("heavy", "adam", &none).unwrap()[6..], ["none", "-"]);
        assert!(cells("heavy", "adam", &json!({})).is_err());
    }

    /// A loss within the intervals is no worse policy; one beyond them is.
    #[test]
    fn losses_are_counted_beyond_the_intervals() {
        let run = |after: f64| {
            json!({ "return_before": 100.0, "return_before_ci95": 5.0, "return_after": after,
                    "return_after_ci95": 5.0, "trials": 2, "promoted": 1 })
        };
        let row = losses("worn", "its negative", &json!({ "runs": [run(91.0), run(80.0), run(120.0)] })).unwrap();
        assert_eq!(row[2..], ["3", "6", "3", "1", "20.0"]);
    }
}
