//! The grid of the comparison and the measurement of its cells.
//!
//! A cell is a time t, a dimension, a temperature lambda and a number K of evaluations of Q. For each (dimension,
//! lambda) there are [`TARGETS`] targets, half of them separable and half mixtures; for each of them and each t there
//! are [`POINTS`] points `x = t X_1 + (1 - t) X_0` with exact draws; at each point every contender estimates the
//! posterior mean [`repetitions`] times. The error is that of the velocity `v = (E[X_1 | x] - x) / (1 - t)` against the
//! exact one, per dimension.
//!
//! Contenders meet the same targets, points and random numbers. A cell's numbers depend on the seed and on the cell
//! alone: not on what else is in the grid, nor on the number of threads.

use super::contenders::{AUTO, CONTENDERS, Memory};
use super::particles::{self, PARTICLES};
use super::targets::{GaussianMixture, Known, Separable};
use crate::noise::Noise;
use crate::{Error, Result};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Flow times of every grid.
pub const TIMES: [f32; 11] = [0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98];
/// Targets for a dimension and a temperature.
pub const TARGETS: usize = 6;
/// Points for a target and a time.
pub const POINTS: usize = 3;
/// Evaluations of Q and coordinates of them that a contender spends at a point, as far as the bounds on the repetitions
/// allow.
const BUDGET: usize = 4096;
/// Fewest and most repetitions of an estimate at a point.
const REPETITIONS: (usize, usize) = (4, 256);
/// Sets of particles of a target; the repetitions take them in turn.
const SETS: usize = 64;

/// Estimates at a point: more where they are cheap, and where an error is a mean over few dimensions.
pub fn repetitions(dim: usize, samples: usize) -> usize {
    (BUDGET / (dim * samples).max(1)).clamp(REPETITIONS.0, REPETITIONS.1)
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// Dimensions of the latent.
    pub dims: Vec<usize>,
    /// Temperatures.
    pub lambdas: Vec<f64>,
    /// Numbers of evaluations of Q, K.
    pub samples: Vec<usize>,
    /// Targets for a dimension and a temperature, [`TARGETS`] unless little is to be spent.
    pub targets: usize,
    /// Seed of targets, points and estimates.
    pub seed: u64,
}

impl Default for Grid {
    fn default() -> Self {
        Self {
            dims: vec![1, 2, 6, 12],
            lambdas: vec![1.0, 0.2, 0.05, 0.02, 0.005],
            samples: vec![8, 16, 32, 64, 96, 128, 512],
            targets: TARGETS,
            seed: 1,
        }
    }
}

/// Where a cell lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// Flow time.
    pub t: f32,
    /// Dimension.
    pub dim: usize,
    /// Temperature.
    pub lambda: f64,
    /// Evaluations of Q.
    pub samples: usize,
}

/// What a contender reached in a cell, per dimension of the velocity.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// Mean squared error.
    pub mse: f64,
    /// Squared bias, unbiased: it may come out below zero by chance.
    pub bias2: f64,
    /// Variance.
    pub variance: f64,
    /// Standard error of `mse` over targets: points of one target are not independent.
    pub stderr: f64,
}

/// A cell with the score of every contender, in the order of [`CONTENDERS`].
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// Where it lies.
    pub place: Place,
    /// Mean of `|v*|^2` per dimension.
    pub velocity2: f64,
    /// Scores.
    pub scores: [Score; CONTENDERS.len()],
    /// The default against the best fixed proposal without a control variate.
    pub against_fixed: AgainstFixed,
}

/// The default's error over that of the best fixed proposal without a control variate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AgainstFixed {
    /// That proposal's place among the contenders.
    pub fixed: usize,
    /// Ratio of the mean squared errors.
    pub ratio: f64,
    /// Its standard error over targets, which both have in common.
    pub stderr: f64,
}

/// What one target contributes: for each (K, t, contender) the scores of its points.
struct Part {
    /// `[t][point]`.
    velocity2: Vec<f64>,
    /// `[K][t][contender][point]`.
    scores: Vec<Score>,
}

/// One target of the grid.
#[derive(Clone, Copy)]
struct Task {
    dim: usize,
    lambda: f64,
    index: usize,
}

/// Number of targets in a grid; `run` reports each that is done.
pub fn tasks(grid: &Grid) -> usize {
    grid.dims.len() * grid.lambdas.len() * grid.targets
}

/// Measures the cells on `threads` threads, ordered by dimension, temperature, K and t.
pub fn run(grid: &Grid, threads: usize, done: &(dyn Fn() + Sync)) -> Result<Vec<Cell>> {
    let mut tasks = Vec::new();
    for &dim in &grid.dims {
        for &lambda in &grid.lambdas {
            tasks.extend((0..grid.targets).map(|index| Task { dim, lambda, index }));
        }
    }
    let parts: Vec<Mutex<Option<Result<Part>>>> = tasks.iter().map(|_| Mutex::new(None)).collect();
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    // From the last to the first: high dimensions take longest and should not be left for the end.
    let work = || {
        while let Some(i) = tasks.len().checked_sub(next.fetch_add(1, Ordering::Relaxed) + 1) {
            if failed.load(Ordering::Relaxed) {
                break;
            }
            let part = measure(grid, tasks[i]);
            failed.fetch_or(part.is_err(), Ordering::Relaxed);
            if let Ok(mut slot) = parts[i].lock() {
                *slot = Some(part);
            }
            done();
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.max(1) {
            scope.spawn(work);
        }
        work();
    });
    let mut all = Vec::with_capacity(parts.len());
    let mut error = None;
    for part in parts {
        match part.into_inner().ok().flatten() {
            Some(Ok(part)) => all.push(part),
            Some(Err(e)) => error = Some(e),
            None => {}
        }
    }
    if let Some(error) = error {
        return Err(error);
    }
    if all.len() < tasks.len() {
        return Err(Error::failure("a thread of the bench broke off: run it again and report this"));
    }
    Ok(cells(grid, &all))
}

/// Averages over the targets and points of each cell.
fn cells(grid: &Grid, parts: &[Part]) -> Vec<Cell> {
    let mut cells = Vec::new();
    let pairs = grid.dims.iter().flat_map(|dim| grid.lambdas.iter().map(move |lambda| (*dim, *lambda)));
    for ((dim, lambda), parts) in pairs.zip(parts.chunks_exact(grid.targets)) {
        for (k, &samples) in grid.samples.iter().enumerate() {
            for (i, &t) in TIMES.iter().enumerate() {
                let velocity2: f64 = parts.iter().flat_map(|p| &p.velocity2[i * POINTS..(i + 1) * POINTS]).sum();
                let points: [Vec<Score>; CONTENDERS.len()] = std::array::from_fn(|c| {
                    let at = ((k * TIMES.len() + i) * CONTENDERS.len() + c) * POINTS;
                    parts.iter().flat_map(|p| &p.scores[at..at + POINTS]).copied().collect()
                });
                let scores = points.each_ref().map(|points| mean_score(points));
                cells.push(Cell {
                    place: Place { t, dim, lambda, samples },
                    velocity2: velocity2 / (grid.targets * POINTS) as f64,
                    scores,
                    against_fixed: against_fixed(&points, &scores),
                });
            }
        }
    }
    cells
}

/// The mean of the scores of a cell's points, target by target, with the standard error of the mean of `mse`.
fn mean_score(points: &[Score]) -> Score {
    let n = points.len() as f64;
    let mean = |f: fn(&Score) -> f64| points.iter().map(f).sum::<f64>() / n;
    let mse = mean(|s| s.mse);
    let stderr = standard_error(points.iter().map(|s| s.mse - mse));
    Score { mse, bias2: mean(|s| s.bias2), variance: mean(|s| s.variance), stderr }
}

/// The standard error of a mean over targets from the deviations at their points, which are averaged within a target
/// first. Not finite with one target.
fn standard_error(deviations: impl Iterator<Item = f64>) -> f64 {
    let deviations: Vec<f64> = deviations.collect();
    let targets = deviations.chunks_exact(POINTS);
    let n = targets.len() as f64;
    let square: f64 = targets.map(|points| (points.iter().sum::<f64>() / POINTS as f64).powi(2)).sum();
    (square / (n - 1.0) / n).sqrt()
}

/// The default's ratio to the best fixed proposal, with the delta method's standard error.
fn against_fixed(points: &[Vec<Score>; CONTENDERS.len()], scores: &[Score; CONTENDERS.len()]) -> AgainstFixed {
    let fixed = (0..CONTENDERS.len()).filter(|c| CONTENDERS[*c].fixed);
    let best = fixed.min_by(|a, b| scores[*a].mse.total_cmp(&scores[*b].mse)).unwrap_or(0);
    let ratio = scores[AUTO].mse / scores[best].mse;
    let deviations = points[AUTO].iter().zip(&points[best]).map(|(a, b)| a.mse - ratio * b.mse);
    AgainstFixed { fixed: best, ratio, stderr: standard_error(deviations) / scores[best].mse }
}

/// What random numbers are for; with the place of their use it names a stream of the seed.
#[derive(Clone, Copy)]
enum Purpose {
    Target,
    Flow,
    Point,
    Estimate,
}

fn noise(seed: u64, purpose: Purpose, place: &[u64]) -> Noise {
    // FNV-1a over the words; `Noise` hashes what comes out.
    let words = std::iter::once(purpose as u64).chain(place.iter().copied());
    let stream = words.fold(0xcbf2_9ce4_8422_2325_u64, |hash, word| {
        word.to_le_bytes().iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
    });
    Noise::new(seed, stream)
}

/// Measures everything about one target.
fn measure(grid: &Grid, task: Task) -> Result<Part> {
    let Task { dim, lambda, index } = task;
    // The functions and means of a target are the same at every temperature.
    let mut shape = noise(grid.seed, Purpose::Target, &[dim as u64, index as u64]);
    let mut target = if index.is_multiple_of(2) {
        Known::Separable(Separable::random(dim, lambda, &mut shape))
    } else {
        Known::Mixture(GaussianMixture::random(dim, lambda, &mut shape))
    };
    let place = [dim as u64, index as u64, lambda.to_bits()];
    let mut flow = noise(grid.seed, Purpose::Flow, &place);
    let pool = particles::of_trained_flow(&mut target, dim, SETS * PARTICLES, &mut flow)?;
    let most = grid.samples.iter().copied().max().unwrap_or(0);
    let mut memory = Memory::new(dim, most);
    let mut part = Part {
        velocity2: vec![0.0; TIMES.len() * POINTS],
        scores: vec![Score::default(); grid.samples.len() * TIMES.len() * CONTENDERS.len() * POINTS],
    };
    let (mut end, mut start, mut mean) = (vec![0.0; dim], vec![0.0; dim], vec![0.0; dim]);
    let (mut exact, mut x) = (vec![0.0; dim], vec![0.0; dim]);
    let mut errors = vec![Errors::new(dim); CONTENDERS.len()];
    for (i, &t) in TIMES.iter().enumerate() {
        for p in 0..POINTS {
            let here = [place[0], place[1], place[2], u64::from(t.to_bits()), p as u64];
            let mut draws = noise(grid.seed, Purpose::Point, &here);
            target.draw(&mut draws, &mut end);
            draws.gaussian(&mut start);
            for ((x, u), z) in x.iter_mut().zip(&end).zip(&start) {
                *x = t * *u as f32 + (1.0 - t) * z;
            }
            let wide: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
            let gap = 1.0 - f64::from(t);
            target.posterior_mean(f64::from(t), &wide, &mut exact);
            let square = |(m, x): (&f64, &f64)| ((m - x) / gap).powi(2);
            part.velocity2[i * POINTS + p] = exact.iter().zip(&wide).map(square).sum::<f64>() / dim as f64;
            for (k, &samples) in grid.samples.iter().enumerate() {
                errors.iter_mut().for_each(Errors::clear);
                for r in 0..repetitions(dim, samples) {
                    let set = r % SETS * PARTICLES * dim;
                    let own = &pool[set..set + PARTICLES * dim];
                    let estimate = [here[0], here[1], here[2], here[3], here[4], r as u64];
                    let random = noise(grid.seed, Purpose::Estimate, &estimate);
                    for (contender, errors) in CONTENDERS.iter().zip(&mut errors) {
                        let given = if contender.particles { own } else { &[] };
                        let config = contender.config(samples);
                        memory.estimate(&config, t, &x, &mut target, given, &mut random.clone(), &mut mean)?;
                        errors.add(mean.iter().zip(&exact).map(|(m, e)| (f64::from(*m) - e) / gap));
                    }
                }
                for (c, errors) in errors.iter().enumerate() {
                    part.scores[((k * TIMES.len() + i) * CONTENDERS.len() + c) * POINTS + p] = errors.score();
                }
            }
        }
    }
    Ok(part)
}

/// Sums over the repetitions at one point.
#[derive(Clone)]
struct Errors {
    count: f64,
    sums: Vec<f64>,
    square: f64,
}

impl Errors {
    fn new(dim: usize) -> Self {
        Self { count: 0.0, sums: vec![0.0; dim], square: 0.0 }
    }

    fn clear(&mut self) {
        self.count = 0.0;
        self.sums.fill(0.0);
        self.square = 0.0;
    }

    fn add(&mut self, error: impl Iterator<Item = f64>) {
        self.count += 1.0;
        for (sum, e) in self.sums.iter_mut().zip(error) {
            *sum += e;
            self.square += e * e;
        }
    }

    /// Per dimension. The squared mean error over-states the squared bias by variance / repetitions, which is taken off.
    fn score(&self) -> Score {
        let dim = self.sums.len() as f64;
        let mse = self.square / self.count / dim;
        let of_mean: f64 = self.sums.iter().map(|s| (s / self.count).powi(2)).sum::<f64>() / dim;
        let variance = (mse - of_mean) * self.count / (self.count - 1.0);
        Score { mse, bias2: of_mean - variance / self.count, variance, stderr: 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::contenders::place;

    fn small() -> Grid {
        Grid { dims: vec![1, 2], lambdas: vec![0.5], samples: vec![8, 64], targets: 2, seed: 3 }
    }

    #[test]
    fn threads_and_the_rest_of_the_grid_do_not_matter() {
        let all = run(&small(), 1, &|| {}).unwrap();
        assert_eq!(all.len(), 2 * 2 * TIMES.len());
        assert_eq!(all, run(&small(), 3, &|| {}).unwrap());
        let part = run(&Grid { dims: vec![2], samples: vec![64], ..small() }, 2, &|| {}).unwrap();
        let wanted: Vec<Cell> = all.into_iter().filter(|c| c.place.dim == 2 && c.place.samples == 64).collect();
        assert_eq!(part, wanted);
    }

    /// Errors worked by hand: +-1 around a bias of 3 and 4.
    #[test]
    fn bias_and_variance_add_up() {
        let mut errors = Errors::new(2);
        for sign in [1.0, -1.0, 1.0, -1.0] {
            errors.add([3.0 + sign, 4.0 - sign].into_iter());
        }
        let score = errors.score();
        // Squares 16 + 9, 4 + 25; mean 27 over two dimensions. The variance is 4 / 3 with n - 1.
        assert!((score.mse - 13.5).abs() < 1e-12);
        assert!((score.variance - 4.0 / 3.0).abs() < 1e-12);
        assert!((score.bias2 - (12.5 - 1.0 / 3.0)).abs() < 1e-12);
        // Two targets of means 13.5 and 15.5; how the points of one differ does not count.
        let mses = [13.5, 12.5, 14.5, 15.5, 15.5, 15.5];
        let whole = mean_score(&mses.map(|mse| Score { mse, ..score }));
        assert!((whole.mse - 14.5).abs() < 1e-12 && (whole.stderr - 1.0).abs() < 1e-12);
    }

    /// With many evaluations in one dimension at a high temperature the plain estimator is close to the exact mean.
    #[test]
    fn an_easy_cell_is_measured_small() {
        let cells =
            run(&Grid { dims: vec![1], lambdas: vec![1.0], samples: vec![512], targets: 2, seed: 5 }, 2, &|| {})
                .unwrap();
        let bridge = place("bridge eta=0");
        for cell in cells {
            let score = cell.scores[bridge];
            assert!(score.mse >= 0.0 && score.stderr.is_finite());
            if (0.35..=0.9).contains(&cell.place.t) {
                assert!(score.mse < 0.05 * (1.0 + cell.velocity2), "{:?} {score:?}", cell.place);
            }
        }
    }
}
