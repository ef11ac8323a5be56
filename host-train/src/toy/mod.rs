//! Sampling from an energy alone: four toys in the plane, three methods at one budget, and the distances to the truth.
//!
//! [`compare`] trains and measures; `host-train toy` prints and draws it. Nothing but energy and gradient reaches a
//! method: exact samples serve the metrics only. Deterministic given the seeds, however many threads there are.
//! No panics but those of programming errors.

pub mod energy;
pub mod method;
pub mod metrics;
pub mod picture;
pub mod score;
pub mod train;

use crate::noise::Noise;
use crate::stats::Summary;
use crate::{Error, Result};
use energy::{Grid, Toy};
use flowlet::flow::Source;
use method::Method;
use metrics::{Judge, Metrics};
use score::ScoreModel;
use std::num::NonZero;
use std::sync::Mutex;
use train::{Budget, train};

/// Points that `host-train toy` draws and measures.
pub const SAMPLES: usize = 8192;

/// Streams of a seed; the trainings use others.
const STREAM_SAMPLES: u64 = 5;
const STREAM_FLOOR: u64 = 6;
const STREAM_REFERENCE: u64 = 7;

/// What is trained and sampled in one go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Job {
    /// A method, with its own sampler.
    Method(Method, Source),
    /// Reverse score matching: samples of the ODE and of the reverse SDE.
    Score(Source),
}

/// Samples and their distances.
#[derive(Clone, Debug)]
pub struct Sampled {
    /// Name in tables.
    pub name: String,
    /// Steps of the sampler.
    pub steps: usize,
    /// Evaluations of networks for one sample.
    pub evaluations: usize,
    /// The points, `n x 2`.
    pub samples: Vec<f32>,
    /// Their distances to the density.
    pub metrics: Metrics,
}

impl Job {
    /// Trains on `toy` and samples.
    fn run(self, toy: Toy, budget: &Budget, judge: &Judge, seed: u64) -> Result<Vec<Sampled>> {
        let (mut noise, n) = (Noise::new(seed, STREAM_SAMPLES), judge.reference().len() / 2);
        let measured = |name: String, steps, evaluations, samples: Vec<f32>| {
            let metrics = judge.measure(&samples);
            Sampled { name, steps, evaluations, samples, metrics }
        };
        match self {
            Self::Method(method, source) => {
                let sampler = method.sampler(source);
                let samples = train(method, source, toy, budget, seed)?.sample(&sampler, n, &mut noise)?;
                let name = if source == Source::Gaussian { "" } else { source.name() };
                let name = [method.name(), name].join(" ").trim().to_string();
                Ok(vec![measured(name, sampler.steps, sampler.evaluations(), samples)])
            }
            Self::Score(source) => {
                let mut model = ScoreModel::train(source, toy, budget, seed)?;
                let flow = Method::Rfm.sampler(source);
                let ode = model.sample_ode(n, &mut noise)?;
                let sde = model.sample_sde(n, &mut noise)?;
                let name = |way: &str| format!("score {} {way}", source.name());
                Ok(vec![
                    measured(name("ode"), flow.steps, flow.evaluations(), ode),
                    measured(name("sde"), score::SDE_STEPS, 2 * score::SDE_STEPS, sde),
                ])
            }
        }
    }
}

/// The result of one kind of samples over seeds.
#[derive(Clone, Debug)]
pub struct Line {
    /// Name in tables.
    pub name: String,
    /// Steps of the sampler.
    pub steps: usize,
    /// Evaluations of networks for one sample.
    pub evaluations: usize,
    /// Over seeds: sliced Wasserstein, MMD squared, share of modes.
    pub summaries: [Summary; 3],
    /// The first seed's points.
    pub samples: Vec<f32>,
}

/// All results on one toy.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The toy.
    pub toy: Toy,
    /// Exact samples in the place of a method's: what no method can go below but by chance.
    pub floor: Line,
    /// The methods.
    pub lines: Vec<Line>,
}

/// Trains every job for every seed on one toy, on all cores, and measures `n` samples of each.
pub fn compare(toy: Toy, jobs: &[Job], budget: &Budget, seeds: &[u64], n: usize) -> Result<Comparison> {
    if seeds.is_empty() || jobs.is_empty() {
        return Err(Error::usage("there is nothing to train: use --seeds 1 or more"));
    }
    let judge = |seed: &u64| Judge::new(toy, n, &mut Noise::new(*seed, STREAM_REFERENCE));
    let judges: Vec<Judge> = seeds.iter().map(judge).collect();
    let grid = Grid::new(toy);
    let exact = seeds.iter().zip(&judges).map(|(seed, judge)| {
        let samples = grid.sample(n, &mut Noise::new(*seed, STREAM_FLOOR));
        let metrics = judge.measure(&samples);
        Sampled { name: "exact".into(), steps: 0, evaluations: 0, samples, metrics }
    });
    let floor = line(exact.collect());

    let tasks: Vec<(usize, usize)> = (0..seeds.len()).flat_map(|s| (0..jobs.len()).map(move |j| (s, j))).collect();
    let next = Mutex::new(tasks.iter());
    let results = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get).min(tasks.len());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let task = next.lock().ok().and_then(|mut next| next.next().copied());
                    let Some((s, j)) = task else { break };
                    let result = jobs[j].run(toy, budget, &judges[s], seeds[s]);
                    if let Ok(mut results) = results.lock() {
                        results.push((j, s, result));
                    }
                }
            });
        }
    });
    let mut results = results.into_inner().map_err(|_| Error::failure("a training broke off: try another --seed"))?;
    results.sort_by_key(|(j, s, _)| (*j, *s));
    let mut lines = Vec::new();
    for job in 0..jobs.len() {
        let mut kinds: Vec<Vec<Sampled>> = Vec::new();
        let (mine, rest) = results.into_iter().partition::<Vec<_>, _>(|(j, ..)| *j == job);
        results = rest;
        for (.., result) in mine {
            for (i, sampled) in result?.into_iter().enumerate() {
                if kinds.len() <= i {
                    kinds.push(Vec::new());
                }
                kinds[i].push(sampled);
            }
        }
        lines.extend(kinds.into_iter().map(line));
    }
    Ok(Comparison { toy, floor, lines })
}

/// Sums up what one kind of samples reached over the seeds; there is at least one.
fn line(sampled: Vec<Sampled>) -> Line {
    let of = |value: fn(&Metrics) -> f64| Summary::of(&sampled.iter().map(|s| value(&s.metrics)).collect::<Vec<_>>());
    let summaries = [of(|m| m.sliced_wasserstein), of(|m| m.mmd2), of(|m| m.modes)];
    let first = sampled.into_iter().next();
    let (name, steps, evaluations, samples) =
        first.map(|s| (s.name, s.steps, s.evaluations, s.samples)).unwrap_or_default();
    Line { name, steps, evaluations, summaries, samples }
}

impl Comparison {
    /// Whether the first line beats every other one, metric by metric; for modes an equal share counts if it is all.
    pub fn first_is_best(&self) -> [bool; 3] {
        let Some((first, others)) = self.lines.split_first() else { return [false; 3] };
        let mean = |line: &Line, metric: usize| line.summaries[metric].mean;
        [0, 1, 2].map(|metric| {
            let mine = mean(first, metric);
            others.iter().all(|other| {
                let theirs = mean(other, metric);
                if metric == 2 { mine > theirs || mine >= 1.0 } else { mine < theirs }
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TINY: Budget = Budget { updates: 30, batch: 16, candidates: 8, width: 16, layers: 2 };

    #[test]
    fn every_method_runs_and_repeats() {
        let jobs = Method::ALL.map(|m| Job::Method(m, Source::Gaussian));
        let run = || compare(Toy::TwoMoons, &jobs, &TINY, &[1, 2], 1024).unwrap();
        let (once, again) = (run(), run());
        assert_eq!(once.lines.len(), 3);
        for (line, repeated) in once.lines.iter().zip(&again.lines) {
            assert_eq!(line.samples, repeated.samples, "{}", line.name);
            assert_eq!(line.samples.len(), 2 * 1024);
            // Thirty updates learn next to nothing, and exact samples are nearer.
            assert!(line.summaries[0].mean > once.floor.summaries[0].mean);
            assert!(line.summaries.iter().all(|s| s.n == 2 && s.mean.is_finite() && s.ci95.is_finite()));
        }
    }

    #[test]
    fn score_matching_runs_for_other_sources() {
        for source in [Source::Gaussian, Source::Laplace, Source::Logistic] {
            let result = compare(Toy::EightGaussians, &[Job::Score(source)], &TINY, &[3], 1024).unwrap();
            let names: Vec<&str> = result.lines.iter().map(|l| l.name.as_str()).collect();
            assert_eq!(names, [format!("score {} ode", source.name()), format!("score {} sde", source.name())]);
            assert!(result.lines.iter().all(|l| l.summaries.iter().all(|s| s.mean.is_finite())));
        }
    }

    #[test]
    fn nothing_to_train_is_refused() {
        assert!(compare(Toy::Rings, &[], &TINY, &[1], 1024).is_err());
        assert!(compare(Toy::Rings, &[Job::Score(Source::Laplace)], &TINY, &[], 1024).is_err());
    }

    #[test]
    fn the_first_is_best_only_if_it_is() {
        let line = |values: [f64; 3]| Line {
            name: String::new(),
            steps: 1,
            evaluations: 1,
            summaries: values.map(|v| Summary::of(&[v])),
            samples: Vec::new(),
        };
        let of = |a, b| Comparison { toy: Toy::Rings, floor: line([0.0; 3]), lines: vec![line(a), line(b)] };
        assert_eq!(of([0.1, 0.1, 1.0], [0.2, 0.2, 1.0]).first_is_best(), [true; 3]);
        assert_eq!(of([0.2, 0.1, 0.9], [0.1, 0.1, 0.9]).first_is_best(), [false; 3]);
    }
}
