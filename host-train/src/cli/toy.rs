//! `toy`: learns to sample densities in the plane from their energies alone, compares the methods and draws them.

use super::{Output, note};
use crate::run::{result_folder, write_atomic};
use crate::toy::energy::Toy;
use crate::toy::method::Method;
use crate::toy::picture::{Panel, draw};
use crate::toy::train::Budget;
use crate::toy::{Comparison, Job, Line, SAMPLES, compare};
use crate::{Error, Result};
use clap::Args;
use flowlet::flow::Source;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Options of `toy`.
#[derive(Args, Clone, Debug)]
pub struct ToyArgs {
    /// two-moons, eight-gaussians, rings, checkerboard, or all
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// First seed
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Number of seeds; with several the table has 95 % intervals
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub seeds: u32,
    /// Folder of the pictures
    #[arg(long, value_name = "DIR", default_value = "runs/toy")]
    pub out: PathBuf,
    /// Only one method: rfm, ne, ge, or score for reverse score matching [default: rfm, ne and ge]
    #[arg(long, value_name = "NAME")]
    pub method: Option<String>,
    /// Source of the noise for rfm and score: gaussian, laplace or logistic [default: gaussian]
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
    /// Steps of Adam
    #[arg(long, value_name = "N", default_value_t = 3000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub updates: u32,
    /// Evaluations of the energy for a training point
    #[arg(long, value_name = "K", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub samples: u32,
}

/// The metrics, as JSON names them, in the order of [`Line::summaries`].
const METRICS: [&str; 3] = ["sliced_wasserstein", "mmd2", "modes"];

/// Trains, measures and draws one toy or all of them.
pub(super) fn run(args: &ToyArgs, output: Output) -> Result<()> {
    let names = Toy::ALL.map(Toy::name).join(", ");
    let toys = match args.name.as_deref() {
        None => return Err(Error::usage(format!("toy needs a name: use one of {names}, or all"))),
        Some("all") => Toy::ALL.to_vec(),
        Some(name) => vec![Toy::from_name(name)?],
    };
    let jobs = jobs(args.method.as_deref(), args.source.as_deref())?;
    let budget = Budget { updates: args.updates as usize, candidates: args.samples as usize, ..Budget::default() };
    let last = args.seed.checked_add(u64::from(args.seeds) - 1);
    let last = last.ok_or_else(|| Error::usage("the last seed is too large: choose a smaller --seed"))?;
    let seeds: Vec<u64> = (args.seed..=last).collect();
    result_folder(&args.out)?;

    let mut listed = Vec::new();
    for toy in toys {
        note(&format!("training on {}", toy.name()));
        let result = compare(toy, &jobs, &budget, &seeds, SAMPLES)?;
        let picture = write_picture(&args.out, &result, seeds.len())?;
        output.line(&format!(
            "{}: {SAMPLES} samples, K = {}, {} updates of {} points, {}",
            toy.name(),
            budget.candidates,
            budget.updates,
            budget.batch,
            if seeds.len() > 1 { format!("seeds {} to {last}", args.seed) } else { format!("seed {last}") }
        ));
        output.line(&format!(
            "  {:<20} {:>5} {:>11}  {:>19}  {:>19}  {:>15}",
            "samples of", "steps", "evaluations", "sliced Wasserstein", "MMD^2 / 1e-3", "modes found / %"
        ));
        for line in result.lines.iter().chain([&result.floor]) {
            output.line(&row(line));
        }
        let verdict = verdict(&jobs, &result);
        if let Some((sentence, _)) = &verdict {
            output.line(&format!("  {sentence}"));
        }
        output.line(&format!("  picture: {}", picture.display()));
        listed.push(json!({
            "toy": toy.name(),
            "floor": object(&result.floor),
            "methods": result.lines.iter().map(object).collect::<Vec<_>>(),
            "rfm_better": verdict.map(|(_, better)| better),
            "picture": picture,
        }));
    }
    output.object(&json!({
        "samples": SAMPLES,
        "candidates": budget.candidates,
        "updates": budget.updates,
        "batch": budget.batch,
        "seeds": seeds,
        "toys": listed,
    }));
    Ok(())
}

/// What is to be trained: the three methods at one source, one of them, or score matching.
fn jobs(method: Option<&str>, source: Option<&str>) -> Result<Vec<Job>> {
    const SOURCES: [Source; 3] = [Source::Gaussian, Source::Laplace, Source::Logistic];
    let named = |name: &str| {
        SOURCES.into_iter().find(|s| s.name() == name).ok_or_else(|| {
            let names = SOURCES.map(Source::name).join(", ");
            Error::usage(format!("there is no source '{name}' for toys: use one of {names}"))
        })
    };
    let noise = source.map_or(Ok(Source::Gaussian), named)?;
    let jobs = match method {
        None => Method::ALL.map(|m| Job::Method(m, noise)).to_vec(),
        Some("score") => vec![Job::Score(noise)],
        Some(name) => {
            let found = Method::ALL.into_iter().find(|m| m.name() == name);
            let method = found.ok_or_else(|| {
                let names = Method::ALL.map(Method::name).join(", ");
                Error::usage(format!("there is no method '{name}': use one of {names} or score"))
            })?;
            vec![Job::Method(method, noise)]
        }
    };
    let flows = |job: &Job| matches!(job, Job::Score(_) | Job::Method(Method::Rfm, _));
    if noise != Source::Gaussian && !jobs.iter().all(flows) {
        return Err(Error::usage("the diffusions need a Gaussian source: add --method rfm or --method score"));
    }
    Ok(jobs)
}

/// Mean and, over several seeds, the half width of its interval.
fn figure(mean: f64, ci95: f64, scale: f64, digits: usize) -> String {
    if ci95.is_finite() {
        format!("{:.digits$} +- {:.digits$}", scale * mean, scale * ci95)
    } else {
        format!("{:.digits$}", scale * mean)
    }
}

fn row(line: &Line) -> String {
    let [distance, mmd2, modes] = &line.summaries;
    let count = |n: usize| if n == 0 { "-".to_string() } else { n.to_string() };
    format!(
        "  {:<20} {:>5} {:>11}  {:>19}  {:>19}  {:>15}",
        line.name,
        count(line.steps),
        count(line.evaluations),
        figure(distance.mean, distance.ci95, 1.0, 4),
        figure(mmd2.mean, mmd2.ci95, 1e3, 3),
        figure(modes.mean, modes.ci95, 1e2, 1),
    )
}

fn object(line: &Line) -> Value {
    let mut object = json!({ "method": line.name, "steps": line.steps, "evaluations": line.evaluations });
    for (name, summary) in METRICS.into_iter().zip(&line.summaries) {
        let ci95 = summary.ci95.is_finite().then_some(summary.ci95);
        object[name] = json!({ "mean": summary.mean, "ci95": ci95 });
    }
    object
}

/// Whether the flow beats both diffusions, where all three were trained.
fn verdict(jobs: &[Job], result: &Comparison) -> Option<(String, bool)> {
    if jobs.len() != Method::ALL.len() {
        return None;
    }
    let best = result.first_is_best();
    let words = ["sliced Wasserstein", "MMD^2", "modes"];
    let of = |wanted: bool| {
        let words = words.into_iter().zip(best).filter(|(_, best)| *best == wanted);
        words.map(|(word, _)| word).collect::<Vec<_>>().join(", ")
    };
    let steps = |i: usize| result.lines.get(i).map_or(0, |line| line.steps);
    let head = format!("rfm with {} steps against the others with {}:", steps(0), steps(1));
    Some(match (best.contains(&true), best.contains(&false)) {
        (true, false) => (format!("{head} best on every metric, ties included"), true),
        (true, true) => (format!("{head} best on {}, ties included, not on {}", of(true), of(false)), false),
        _ => (format!("{head} best on none"), false),
    })
}

/// The picture of the first seed's samples; returns its path.
fn write_picture(folder: &Path, result: &Comparison, seeds: usize) -> Result<PathBuf> {
    let subtitle = |line: &Line| match (seeds, line.summaries[0].mean) {
        (1, distance) => format!("{} steps, sliced Wasserstein {distance:.3}", line.steps),
        (_, mean) => format!("{} steps, Wasserstein {mean:.3}, {seeds} seeds", line.steps),
    };
    let subtitles: Vec<String> = result.lines.iter().map(subtitle).collect();
    let lines = result.lines.iter().zip(&subtitles);
    let panels: Vec<Panel> =
        lines.map(|(line, subtitle)| Panel { title: &line.name, subtitle, samples: &line.samples }).collect();
    let path = folder.join(format!("{}.svg", result.toy.name()));
    write_atomic(&path, draw(result.toy, &panels).as_bytes())?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_and_sources_are_matched() {
        assert_eq!(jobs(None, None).unwrap().len(), 3);
        assert_eq!(jobs(Some("score"), Some("laplace")).unwrap(), [Job::Score(Source::Laplace)]);
        assert_eq!(jobs(Some("rfm"), Some("logistic")).unwrap(), [Job::Method(Method::Rfm, Source::Logistic)]);
        for (method, source, word) in [
            (Some("sac"), None, "rfm, ne, ge or score"),
            (None, Some("cauchy"), "gaussian, laplace, logistic"),
            (None, Some("laplace"), "--method"),
            (Some("ne"), Some("laplace"), "--method"),
        ] {
            let refusal = jobs(method, source).unwrap_err();
            assert!(refusal.exit_code() == 2 && refusal.to_string().contains(word), "{refusal}");
        }
    }

    #[test]
    fn toys_are_refused_by_name_before_anything_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("none");
        let args = ToyArgs {
            name: None,
            seed: 1,
            seeds: 1,
            out: out.clone(),
            method: None,
            source: None,
            updates: 1,
            samples: 8,
        };
        for name in [None, Some("moons".to_string())] {
            let refusal = run(&ToyArgs { name, ..args.clone() }, Output { json: false }).unwrap_err();
            assert!(Toy::ALL.iter().all(|toy| refusal.to_string().contains(toy.name())), "{refusal}");
        }
        let late = ToyArgs { name: Some("rings".into()), seed: u64::MAX, seeds: 2, ..args };
        assert_eq!(run(&late, Output { json: false }).unwrap_err().exit_code(), 2);
        assert!(!out.exists());
    }

    #[test]
    fn a_short_run_draws_its_picture() {
        let folder = tempfile::tempdir().unwrap();
        let args = ToyArgs {
            name: Some("rings".into()),
            seed: 1,
            seeds: 1,
            out: folder.path().join("toys"),
            method: None,
            source: None,
            updates: 3,
            samples: 8,
        };
        run(&args, Output { json: true }).unwrap();
        let svg = std::fs::read_to_string(folder.path().join("toys/rings.svg")).unwrap();
        for word in ["rings", ">rfm<", ">ne<", ">ge<", "20 steps", "100 steps"] {
            assert!(svg.contains(word), "{word}");
        }
    }
}
