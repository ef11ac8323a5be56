//! One-step policies over tasks and seeds: trains what is missing, distils it and writes `docs/few-step.md`.
//!
//! Every seed is trained with the defaults, then `host-train distill` learns one-step policies from it and plays them
//! against ten steps. What is there is kept, so a campaign that was stopped goes on where it was. The seeds are given by
//! `--first-seed`: those of the committed document were drawn after the code was fixed.

use crate::campaign::{Campaign, Setting, Trainer};
use crate::document::{self, number};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// `cargo xtask few-step`.
#[derive(clap::Args)]
pub struct Options {
    /// Seeds of each environment
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u64).range(2..=10))]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 1, value_name = "N")]
    first_seed: u64,
    /// Runs side by side [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: Option<u16>,
    /// Environments
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_value = "pendulum,cartpole,furuta,fork")]
    envs: Vec<String>,
    /// Episodes of the reported losses
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u64).range(2..=100_000))]
    episodes: u64,
    /// Folder of the runs
    #[arg(long, value_name = "DIR", default_value = "runs/few-step")]
    out: PathBuf,
    /// Where to write few-step.md
    #[arg(long, value_name = "DIR", default_value = "docs")]
    docs: PathBuf,
    /// Learn nothing: write the document from what is there
    #[arg(long)]
    no_training: bool,
}

/// What `distill` leaves in a run's folder.
const REPORT: &str = "distillation.json";

/// 0.975 quantiles of Student's t with one to nine degrees of freedom.
const STUDENT: [f64; 9] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262];

/// Trains, distils, writes.
pub fn run(root: &Path, options: &Options) -> Result<u8> {
    let trainer = Trainer::build(root)?;
    let setting = |env: &String| Setting { name: env.clone(), arguments: ["--env", env].map(String::from).to_vec() };
    let settings = options.envs.iter().map(setting).collect();
    let campaign =
        Campaign { out: options.out.clone(), settings, first_seed: options.first_seed, seeds: options.seeds };
    let mut failures = campaign.run(&trainer, options.jobs, !options.no_training)?;
    if !options.no_training {
        let workers = options.jobs.map_or_else(|| thread::available_parallelism().map_or(1, |n| n.get()), usize::from);
        failures.extend(distil(root, &trainer, &campaign, options.episodes, workers));
    }
    let mut reports = BTreeMap::<&str, Vec<Value>>::new();
    for (folder, setting, _) in campaign.trainings() {
        let path = root.join(&folder).join(REPORT);
        // What failed is missing here, and the document counts the seeds that it is made of.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let report: Value = serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))?;
        counted(&report, options.episodes).with_context(|| path.display().to_string())?;
        reports.entry(setting.name.as_str()).or_default().push(report);
    }
    let text = block(options, &reports)?;
    let last = options.first_seed + options.seeds - 1;
    let command = format!("cargo xtask few-step --seeds {} --first-seed {}", options.seeds, options.first_seed);
    document::write(&root.join(&options.docs).join("few-step.md"), "Few-step policies", &command, &text)?;
    for failure in &failures {
        println!("failed: {failure}");
    }
    println!("{}, seeds {} to {last}", root.join(&options.docs).join("few-step.md").display(), options.first_seed);
    Ok(u8::from(!failures.is_empty()))
}

/// Distils every finished run that is not distilled yet; returns what failed.
fn distil(root: &Path, trainer: &Trainer, campaign: &Campaign, episodes: u64, workers: usize) -> Vec<String> {
    let holds = |folder: &Path, name: &str| root.join(folder).join(name).is_file();
    let open: Vec<(PathBuf, &Setting, u64)> = campaign
        .trainings()
        .into_iter()
        .filter(|(folder, ..)| holds(folder, "evaluation.json") && !holds(folder, REPORT))
        .collect();
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..workers.min(open.len()) {
            scope.spawn(|| {
                while let Some((folder, setting, seed)) = open.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let folder = folder.to_string_lossy().into_owned();
                    let words = ["distill", &folder, "--episodes", &episodes.to_string()];
                    let said = match trainer.json(&words) {
                        Ok(report) => format!("loss {}", percent(&report["loss"]["mean"])),
                        Err(error) => {
                            if let Ok(mut failures) = failures.lock() {
                                failures.push(format!("{folder}: {error:#}"));
                            }
                            "FAILED".to_string()
                        }
                    };
                    eprintln!("distilled {}, seed {seed}: {said}", setting.name);
                }
            });
        }
    });
    failures.into_inner().unwrap_or_default()
}

/// Refuses a report of another number of episodes than the document tells.
fn counted(report: &Value, episodes: u64) -> Result<()> {
    match report["episodes"].as_u64() {
        Some(found) if found == episodes => Ok(()),
        found => bail!(
            "the losses are of {} episodes, not {episodes}: remove the file, or give the --episodes it was made with",
            found.unwrap_or_default()
        ),
    }
}

fn percent(value: &Value) -> String {
    value.as_f64().map_or("unknown".to_string(), |x| format!("{:.2} %", 100.0 * x))
}

/// The losses of a policy over seeds.
#[derive(Debug, Default)]
struct Losses {
    losses: Vec<f64>,
    astray: Vec<f64>,
    cpu: Vec<f64>,
}

impl Losses {
    fn add(&mut self, row: &Value) -> Result<()> {
        self.losses.push(
            row["loss"]["mean"]
                .as_f64()
                .context("a seed has no loss, since its ten steps return no more than random actions")?,
        );
        self.astray.extend(row["astray"].as_f64());
        self.cpu.extend(row["cpu_seconds"].as_f64());
        Ok(())
    }

    /// `mean [low, high]` in per cent, Student's interval over seeds.
    fn interval(&self) -> String {
        let n = self.losses.len();
        let mean = mean(&self.losses);
        let squares: f64 = self.losses.iter().map(|x| (x - mean).powi(2)).sum();
        let quantile = n.checked_sub(2).and_then(|i| STUDENT.get(i));
        let half = quantile.map(|t| t * (squares / (n - 1) as f64 / n as f64).sqrt());
        match half {
            Some(half) => format!("{} [{}, {}]", shown(mean), shown(mean - half), shown(mean + half)),
            None => shown(mean),
        }
    }
}

/// A share in per cent, without the sign of what rounds to nothing.
fn shown(x: f64) -> String {
    let text = format!("{:.2}", 100.0 * x);
    if text == "-0.00" { "0.00".to_string() } else { text }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The tables of losses and returns.
fn block(options: &Options, reports: &BTreeMap<&str, Vec<Value>>) -> Result<String> {
    let header = ["task", "policy", "seeds", "loss, % [95 % over seeds]", "worst seed, %", "astray, %", "CPU-seconds"];
    let mut text = document::row(&header) + &document::row(&["---"; 7]);
    let mut returns =
        document::row(&["task", "random actions", "ten steps, by seed", "kept"]) + &document::row(&["---"; 4]);
    for env in &options.envs {
        let Some(seeds) = reports.get(env.as_str()) else {
            bail!("no run of {env} was distilled: type the command again")
        };
        let mut policies: Vec<(String, Losses)> = Vec::new();
        let (mut kept, mut names, mut ten, mut random, mut own) = (Losses::default(), vec![], vec![], vec![], vec![]);
        for report in seeds {
            let rows = report["rows"].as_array().context("a report without rows")?;
            own.extend(report["astray_of_ten_steps"].as_f64());
            let chosen = report["kept"].as_str().context("a report that keeps nothing")?;
            names.push(chosen.to_string());
            for row in rows {
                let name = row["policy"].as_str().context("a row without a name")?;
                match name {
                    "random actions" => random.extend(row["return"]["mean"].as_f64()),
                    "ten steps" => ten.extend(row["return"]["mean"].as_f64()),
                    _ => {
                        let at = policies.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
                            policies.push((name.to_string(), Losses::default()));
                            policies.len() - 1
                        });
                        policies[at].1.add(row)?;
                    }
                }
                if name == chosen {
                    kept.add(row)?;
                }
            }
        }
        policies.push(("**the kept one**".into(), kept));
        for (name, losses) in &policies {
            let worst = losses.losses.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let optional = |values: &[f64], scale: f64| match values {
                [] => "-".to_string(),
                values => format!("{:.1}", scale * mean(values)),
            };
            text += &document::row(&[
                env.clone(),
                name.clone(),
                losses.losses.len().to_string(),
                losses.interval(),
                shown(worst),
                optional(&losses.astray, 100.0),
                if name.starts_with("**") { "-".to_string() } else { optional(&losses.cpu, 1.0) },
            ]);
        }
        let ten: Vec<String> = ten.iter().map(|x| number(*x)).collect();
        let of = |method: &str| names.iter().filter(|name| *name == method).count();
        returns += &document::row(&[
            env.clone(),
            number(mean(&random)),
            ten.join(", "),
            format!(
                "distil {}, mean-velocity {}; astray by itself {:.1} %",
                of("distil"),
                of("mean-velocity"),
                100.0 * mean(&own)
            ),
        ]);
    }
    let mut out = String::new();
    writeln!(out, "{text}\n{returns}")?;
    writeln!(
        out,
        "Loss: mean over {} paired episodes a seed (equal start states and noise, single samples) of the return lost against ten \
         Euler steps of the same run's flow, in per cent of what ten steps return above random actions; negative is a gain. In \
         brackets Student's 95 % interval over seeds. Worst: the seed that loses most. Astray: the share of actions farther than \
         0.2 half ranges from each of 64 samples of the flow in the same state, of 2,000 states; the flow's own share is in the \
         second table. CPU-seconds: learning alone, one thread, mean over seeds. The distilled head is kept unless the other \
         returns clearly more in half as many other episodes.\n",
        options.episodes
    )?;
    writeln!(
        out,
        "Seeds {} to {}, trained by `host-train train --env E --seed N` with the defaults, then `host-train distill RUN \
         --episodes {}`; {}.",
        options.first_seed,
        options.first_seed + options.seeds - 1,
        options.episodes,
        document::machine()
    )?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn report(distil: f64, mean_velocity: f64, kept: &str) -> Value {
        let row = |name: &str, loss: f64, cpu: Option<f64>| {
            json!({ "policy": name, "return": {"mean": 100.0 * (1.0 - loss)}, "loss": {"mean": loss},
                    "astray": cpu.map(|_| 0.01), "cpu_seconds": cpu })
        };
        json!({
            "rows": [row("random actions", 1.0, None), row("ten steps", 0.0, None), row("one plain Euler step", 0.04, None),
                     row("distil", distil, Some(2.0)), row("mean-velocity", mean_velocity, Some(15.0))],
            "kept": kept, "astray_of_ten_steps": 0.005,
        })
    }

    fn options() -> Options {
        Options {
            seeds: 2,
            first_seed: 7,
            jobs: None,
            envs: vec!["pendulum".into()],
            episodes: 200,
            out: PathBuf::new(),
            docs: PathBuf::new(),
            no_training: true,
        }
    }

    #[test]
    fn the_table_has_mean_interval_and_worst_seed() {
        let reports =
            BTreeMap::from([("pendulum", vec![report(0.01, 0.02, "distil"), report(0.03, 0.0, "mean-velocity")])]);
        let text = block(&options(), &reports).unwrap();
        // Two seeds at 1 and 3 per cent: 2 +- 12.706 times 1.
        assert!(text.contains("| pendulum | distil | 2 | 2.00 [-10.71, 14.71] | 3.00 | 1.0 | 2.0 |"), "{text}");
        // Each seed counts with what it kept: 1 and 0 per cent.
        assert!(text.contains("| pendulum | **the kept one** | 2 | 0.50 ["), "{text}");
        assert!(text.contains("| pendulum | one plain Euler step | 2 | 4.00 [4.00, 4.00] | 4.00 | - | - |"), "{text}");
        assert!(text.contains("distil 1, mean-velocity 1; astray by itself 0.5 %"), "{text}");
        assert!(text.contains("| pendulum | 0.000 | 100, 100 |"), "{text}");
    }

    #[test]
    fn what_the_document_would_misstate_is_refused() {
        counted(&json!({ "episodes": 200 }), 200).unwrap();
        let said = counted(&json!({ "episodes": 100 }), 200).unwrap_err().to_string();
        assert!(said.contains("100 episodes, not 200"), "{said}");
        let mut untrained = report(0.01, 0.0, "distil");
        untrained["rows"][3]["loss"]["mean"] = Value::Null;
        let said = block(&options(), &BTreeMap::from([("pendulum", vec![untrained])])).unwrap_err().to_string();
        assert!(said.contains("no more than random"), "{said}");
    }

    #[test]
    fn a_task_without_a_report_is_named() {
        let said = block(&options(), &BTreeMap::new()).unwrap_err().to_string();
        assert!(said.contains("pendulum") && said.contains("again"), "{said}");
    }
}
