//! flowlet's estimators for a batch of points: the same rounds as on the device, with one critic call a round.
//!
//! [`BatchEstimator`] runs any method of [`flowlet::rfm`], each point in a memory of its own and with a generator of
//! its own, so that what a point draws depends on nothing beside it. Target density over latents y, linear path and
//! source are those of [`super::posterior`], which is the faster and simpler estimator where one round of a fixed
//! mixture is enough. In each round every point proposes rows, the critic values all of them at once, and the rows are
//! handed back. The policy sample of a point's state is its only particle.
//!
//! A point without an estimate (the critic is not finite there) gets its own policy sample for a mean, which the
//! regression then merely confirms, and is counted in [`Estimates::refused`].
//!
//! **Entropy.** With w the weights of the posterior, N its normaliser and b the density of the bridge, the target is
//! worth w / b at a row, so Z = N sum w / b and H = ln Z - E[Q / lambda] under those weights. Only points with t up to
//! [`ENTROPY_UNTIL`] take part: later on the bridge is narrow, the proposals are local, and w / b knows only their
//! neighbourhood. An update without an early point leaves the temperature as it is.
//!
//! Panics only on slices of a wrong length and on a configuration that flowlet refuses. Nothing allocates after
//! construction. Deterministic given the stream.
//! Cost: that of the method, in scalar code; `K^2 / 2` exponentials a point for the default.

use super::posterior::{Estimates, Points};
use crate::config::{ControlVariate, Estimator, RfmConfig};
use crate::nn::elementwise::{softmax, tanh_of};
use crate::nn::math::{ln, log_sech2, vectorised};
use crate::noise::Noise;
use flowlet::rfm::{
    Annealed, ControlVariate as Correction, EstimatorScratch, Langevin, Method, Mixture, Posterior,
    RfmConfig as Rounds, Run, Support,
};
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro128PlusPlus;
use std::mem::take;
use std::ops::Range;

/// The latest flow time at which a point tells the entropy: there the bridge is as wide as the source.
pub const ENTROPY_UNTIL: f32 = 0.5;

/// The rounds that a configuration asks flowlet for; `None` where it asks for [`super::posterior`].
fn rounds(config: &RfmConfig) -> Option<Rounds> {
    let k = config.candidates();
    let method = match config.estimator {
        Estimator::Mixture => return None,
        Estimator::Auto => return Some(Rounds::auto(k)),
        Estimator::Mala => Method::Mala(chains(k)),
        Estimator::Smc => Method::Smc(annealed(k)),
    };
    let control_variate = match config.control_variate {
        ControlVariate::None => Correction::None,
        ControlVariate::Eta => Correction::Eta(config.eta as f32),
        ControlVariate::Diagonal => Correction::Diagonal { ridge: config.ridge as f32, clip: config.clip as f32 },
        ControlVariate::Fisher => Correction::Fisher,
    };
    Some(Rounds { method, control_variate, ..Rounds::default() })
}

/// Chains for `k` candidates: half of them start, by a quarter from the bridge and a quarter uniform, the others are
/// moves, as many as four of each chain.
pub fn chains(k: usize) -> Langevin {
    let (bridge, uniform, moves) = (k / 4, k / 2 - k / 4, k - k / 2);
    let steps = divisor(moves);
    Langevin::new(Mixture { bridge, uniform, kernel: 0, ..Mixture::default() }, moves / steps, steps)
}

/// Annealed particles for `k` candidates, in as many as four rounds.
pub fn annealed(k: usize) -> Annealed {
    Annealed::new(k / divisor(k), divisor(k))
}

/// The largest divisor of `n` up to four.
fn divisor(n: usize) -> usize {
    (1..=4).rev().find(|d| n.is_multiple_of(*d)).unwrap_or(1)
}

/// An estimator of flowlet, and memory for a batch of points.
#[derive(Clone, Debug)]
pub struct BatchEstimator {
    rounds: Rounds,
    act: usize,
    k: usize,
    /// The [`EstimatorScratch`] of every point, one after the other.
    memory: Vec<f32>,
    /// Empty between estimates; kept for its allocation.
    seats: Vec<Seat<'static>>,
    /// The rows of one round, all points side by side.
    rows: Vec<f32>,
    actions: Vec<f32>,
    q: Vec<f32>,
    gradient: Vec<f32>,
}

/// A point under way.
#[derive(Clone, Debug)]
struct Seat<'x> {
    /// Nothing where flowlet refused the point.
    run: Option<Run<'x>>,
    rng: Xoshiro128PlusPlus,
    /// Whether it waits for the rows of this round.
    asks: bool,
}

impl BatchEstimator {
    /// For up to `points` points with actions of width `act`; `None` where the configuration asks for the trainer's own
    /// estimator. Panics on what flowlet refuses whatever the point: no estimate would ever come of it.
    pub fn new(config: &RfmConfig, points: usize, act: usize) -> Option<Self> {
        let (rounds, k) = (rounds(config)?, config.candidates());
        let (middle, mut memory) = (vec![0.0; act], vec![0.0; EstimatorScratch::len(act, k)]);
        if let Err(e) = rounds.start(0.5, &middle, Support::Unbounded, &middle, &carve(&mut memory, act, k)) {
            panic!("flowlet refuses the estimator of this configuration: {e:?}");
        }
        Some(Self {
            rounds,
            act,
            k,
            memory: vec![0.0; points * EstimatorScratch::len(act, k)],
            seats: Vec::with_capacity(points),
            rows: vec![0.0; points * k * act],
            actions: vec![0.0; points * k * act],
            q: vec![0.0; points * k],
            gradient: vec![0.0; points * k * act],
        })
    }

    /// Posterior means, effective sample sizes and entropies (of the early points) into `out`.
    ///
    /// The generator of each point is seeded with the next number of `noise`. `critic` is called once a round with the
    /// squashed actions of all points, equally many for each, and that number; it writes min Q of each and the gradient
    /// with respect to the action.
    pub fn estimate(
        &mut self,
        points: Points<'_>,
        temperature: f32,
        noise: &mut Noise,
        mut critic: impl FnMut(&[f32], usize, &mut [f32], &mut [f32]),
        out: &mut Estimates,
    ) {
        let mut seats = emptied(take(&mut self.seats));
        self.start(points, noise, &mut seats);
        while let Some(asked) = self.propose(&mut seats) {
            let rows = seats.len() * asked.len();
            let actions = &mut self.actions[..rows * self.act];
            tanh_of(actions, &self.rows[..rows * self.act]);
            critic(actions, asked.len(), &mut self.q[..rows], &mut self.gradient[..rows * self.act]);
            self.hand_back(&seats, asked, 1.0 / temperature);
        }
        self.finish(points, &seats, out);
        self.seats = emptied(seats);
    }

    /// Opens a run for every point.
    fn start<'x>(&mut self, points: Points<'x>, noise: &mut Noise, seats: &mut Vec<Seat<'x>>) {
        let (act, k) = (self.act, self.k);
        let each = points.x.chunks_exact(act).zip(points.centre.chunks_exact(act)).zip(points.t);
        for (((x, particle), &t), memory) in each.zip(self.memory.chunks_exact_mut(EstimatorScratch::len(act, k))) {
            let run = self.rounds.start(t, x, Support::Unbounded, particle, &carve(memory, act, k)).ok();
            let rng = Xoshiro128PlusPlus::seed_from_u64(noise.rng().next_u64());
            seats.push(Seat { run, rng, asks: false });
        }
        assert_eq!(seats.len(), points.t.len(), "more points than there is memory for");
    }

    /// Lets every point propose, and gathers the rows; `None` when none has any more.
    fn propose(&mut self, seats: &mut [Seat<'_>]) -> Option<Range<usize>> {
        let (act, k) = (self.act, self.k);
        let len = EstimatorScratch::len(act, k);
        let mut asked = None;
        for (seat, memory) in seats.iter_mut().zip(self.memory.chunks_exact_mut(len)) {
            let scratch = &mut carve(memory, act, k);
            let rows = seat.run.as_mut().and_then(|run| self.rounds.propose(run, &mut seat.rng, scratch));
            seat.asks = rows.is_some();
            if let Some(rows) = rows {
                // The critic takes equally many actions for every state.
                assert_eq!(rows, *asked.get_or_insert(rows.clone()), "points of one K ask for the same rows");
            }
        }
        let asked = asked?;
        let cells = asked.len() * act;
        let gathered = self.rows.chunks_exact_mut(cells);
        for ((seat, memory), gathered) in seats.iter().zip(self.memory.chunks_exact_mut(len)).zip(gathered) {
            if seat.asks {
                gathered.copy_from_slice(&carve(memory, act, k).candidates[asked.start * act..asked.end * act]);
            } else {
                gathered.fill(0.0);
            }
        }
        Some(asked)
    }

    /// Turns what the critic said into ln p_1 = Q / lambda + sum ln sech^2 and its gradient, in every point's memory.
    fn hand_back(&mut self, seats: &[Seat<'_>], asked: Range<usize>, inverse: f32) {
        let (act, k, cells) = (self.act, self.k, asked.len() * self.act);
        let rows = self.rows.chunks_exact(cells).zip(self.actions.chunks_exact(cells));
        let values = self.q.chunks_exact(asked.len()).zip(self.gradient.chunks_exact(cells));
        let memories = self.memory.chunks_exact_mut(EstimatorScratch::len(act, k));
        for (((seat, memory), (u, a)), (q, gradient)) in seats.iter().zip(memories).zip(rows).zip(values) {
            if !seat.asks {
                continue;
            }
            let EstimatorScratch { log_targets, scores, .. } = carve(memory, act, k);
            let scores = &mut scores[asked.start * act..asked.end * act];
            let log_targets = &mut log_targets[asked.clone()];
            vectorised(|| {
                for ((l, q), u) in log_targets.iter_mut().zip(q).zip(u.chunks_exact(act)) {
                    *l = q * inverse + u.iter().map(|&u| log_sech2(u)).sum::<f32>();
                }
                for ((s, a), g) in scores.iter_mut().zip(a).zip(gradient) {
                    *s = (1.0 - a * a) * g * inverse - 2.0 * a;
                }
            });
        }
    }

    /// Reads the results.
    fn finish(&mut self, points: Points<'_>, seats: &[Seat<'_>], out: &mut Estimates) {
        let (act, k) = (self.act, self.k);
        out.entropy.clear();
        out.refused = 0;
        let each = out.mean.chunks_exact_mut(act).zip(&mut out.ess).zip(points.centre.chunks_exact(act));
        let memories = self.memory.chunks_exact_mut(EstimatorScratch::len(act, k));
        for ((seat, memory), ((mean, ess), latent)) in seats.iter().zip(memories).zip(each) {
            let scratch = &mut carve(memory, act, k);
            let found = seat.run.as_ref().and_then(|run| Some((run, self.rounds.finish(run, scratch, mean).ok()?)));
            if let Some((run, posterior)) = found {
                *ess = posterior.effective_sample_size;
                if run.evidence().t() <= ENTROPY_UNTIL {
                    out.entropy.push(entropy(run, &posterior, scratch));
                }
            } else {
                mean.copy_from_slice(latent);
                *ess = 1.0;
                out.refused += 1;
            }
        }
    }
}

/// The target's entropy from the rows of a finished run, whose weights are used up.
fn entropy(run: &Run<'_>, posterior: &Posterior, scratch: &mut EstimatorScratch<'_>) -> f32 {
    let evidence = run.evidence();
    let EstimatorScratch { candidates, log_targets, weights, .. } = scratch;
    for (weight, y) in weights.iter_mut().zip(candidates.chunks_exact(evidence.dim())) {
        let bridge = || evidence.log_source(y) + evidence.log_bridge_factor();
        *weight = if *weight > 0.0 { ln(*weight) - bridge() } else { f32::NEG_INFINITY };
    }
    let log_z = posterior.log_normalizer + softmax(weights);
    let rows = weights.iter().zip(log_targets.iter()).zip(candidates.chunks_exact(evidence.dim()));
    // A refused row has a weight of nothing and an energy without bound.
    let rows = rows.filter(|((_, log_target), _)| log_target.is_finite());
    log_z - rows.map(|((w, l), y)| w * (l - y.iter().map(|&y| log_sech2(y)).sum::<f32>())).sum::<f32>()
}

/// One point's memory.
fn carve(memory: &mut [f32], act: usize, k: usize) -> EstimatorScratch<'_> {
    EstimatorScratch::carve(memory, act, k).expect("a point's memory has the length that the scratch asks for")
}

/// The vector without its seats, for seats that borrow from elsewhere. Collecting in place keeps the allocation.
fn emptied<'x>(mut seats: Vec<Seat<'_>>) -> Vec<Seat<'x>> {
    seats.clear();
    seats.into_iter().map_while(|_| None).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auto(scale: usize) -> RfmConfig {
        let c = RfmConfig::standard();
        let (bridge, uniform, kernel) = (c.bridge * scale, c.uniform * scale, c.kernel * scale);
        RfmConfig { estimator: Estimator::Auto, bridge, uniform, kernel, ..c }
    }

    /// Q(a) = sum_j sin(3 a_j + j) with its gradient, and how often it was asked.
    fn critic(act: usize, calls: &mut usize, actions: &[f32], q: &mut [f32], gradient: &mut [f32]) {
        *calls += 1;
        for ((a, q), g) in actions.chunks(act).zip(q).zip(gradient.chunks_mut(act)) {
            *q = a.iter().enumerate().map(|(j, a)| (3.0 * a + j as f32).sin()).sum();
            g.iter_mut().zip(a).enumerate().for_each(|(j, (g, a))| *g = 3.0 * (3.0 * a + j as f32).cos());
        }
    }

    /// `n` points of width `act` with times of (low, high): x, t, latent.
    fn points(n: usize, act: usize, low: f32, high: f32) -> [Vec<f32>; 3] {
        let mut noise = Noise::new(5, 0);
        let (mut x, mut t, mut latent) = (vec![0.0; n * act], vec![0.0; n], vec![0.0; n * act]);
        noise.gaussian(&mut x);
        noise.gaussian(&mut latent);
        noise.uniform_in(&mut t, low, high);
        [x, t, latent]
    }

    /// With many candidates: mean and entropy of a one-dimensional target by quadrature, at early times.
    #[test]
    fn means_and_entropy_converge_to_quadrature() {
        let (n, temperature) = (24, 0.5);
        let [x, t, centre] = points(n, 1, 0.05, 0.5);
        let (step, mut z, mut energy) = (1e-3, 0.0, 0.0);
        let (mut mass, mut moment) = (vec![0.0; n], vec![0.0; n]);
        for i in -12_000..=12_000 {
            let y = f64::from(i) * step;
            let q = (3.0 * y.tanh()).sin() / f64::from(temperature);
            let target = q.exp() / y.cosh().powi(2);
            z += target * step;
            energy += target * q * step;
            for p in 0..n {
                let (x, t) = (f64::from(x[p]), f64::from(t[p]));
                let joint = target * (-0.5 * ((x - t * y) / (1.0 - t)).powi(2)).exp();
                mass[p] += joint;
                moment[p] += joint * y;
            }
        }
        let entropy = z.ln() - energy / z;
        // 480 independent draws of spread one would miss by 1 / sqrt 480 = 0.046. Learnt proposals and a control variate
        // do better; chains and particles that move four times are far from independent.
        let loose = [0.12, 0.3, 0.06];
        for (estimator, bounds) in
            [(Estimator::Auto, [0.03, 0.03, 0.01]), (Estimator::Mala, loose), (Estimator::Smc, loose)]
        {
            let mut batch = BatchEstimator::new(&RfmConfig { estimator, ..auto(60) }, n, 1).unwrap();
            let mut out = Estimates::new(n, 1);
            let view = Points { x: &x, t: &t, centre: &centre };
            let q = |a: &[f32], _: usize, q: &mut [f32], g: &mut [f32]| critic(1, &mut 0, a, q, g);
            batch.estimate(view, temperature, &mut Noise::new(6, 0), q, &mut out);
            assert_eq!((out.entropy.len(), out.refused), (n, 0));
            let errors = |got: &[f32], want: &dyn Fn(usize) -> f64| -> Vec<f64> {
                got.iter().enumerate().map(|(p, got)| f64::from(*got) - want(p)).collect()
            };
            let size = |errors: &[f64]| (errors.iter().map(|e| e * e).sum::<f64>() / n as f64).sqrt();
            let mean = errors(&out.mean, &|p| moment[p] / mass[p]);
            let h = errors(&out.entropy, &|_| entropy);
            // The average over points is what the temperature follows.
            let average = h.iter().sum::<f64>() / n as f64;
            let found = [size(&mean), size(&h), average.abs()];
            assert!(found.iter().zip(bounds).all(|(f, bound)| *f < bound), "{estimator:?}: {found:?}");
        }
    }

    /// What a point gets does not depend on its neighbours, and the critic is called once a round. Late points tell no
    /// entropy.
    #[test]
    fn points_are_independent_and_share_their_calls() {
        let (n, act) = (9, 3);
        let [x, t, centre] = points(n, act, 0.05, 0.95);
        let mut estimator = BatchEstimator::new(&auto(1), n, act).unwrap();
        let mut run = |n: usize| {
            let (mut out, mut calls, mut biggest) = (Estimates::new(n, act), 0, 0);
            let view = Points { x: &x[..n * act], t: &t[..n], centre: &centre[..n * act] };
            let q = |a: &[f32], group: usize, q: &mut [f32], g: &mut [f32]| {
                assert_eq!((a.len(), q.len()), (n * group * act, n * group));
                biggest = biggest.max(group);
                critic(act, &mut calls, a, q, g);
            };
            estimator.estimate(view, 0.2, &mut Noise::new(6, 0), q, &mut out);
            // Eight candidates: four, one, one and two.
            assert_eq!((calls, biggest, out.refused), (4, 4, 0));
            assert_eq!(out.entropy.len(), t[..n].iter().filter(|t| **t <= ENTROPY_UNTIL).count());
            (out.mean, out.ess)
        };
        let all = run(n);
        assert_eq!(all, run(n));
        let few = run(4);
        assert_eq!((&all.0[..4 * act], &all.1[..4]), (&few.0[..], &few.1[..]));
    }

    /// A ridge of zero is no control variate for flowlet at any point.
    #[test]
    #[should_panic(expected = "refuses the estimator of this configuration: ControlVariate")]
    fn an_estimator_that_refuses_every_point_is_not_made() {
        let config =
            RfmConfig { estimator: Estimator::Smc, control_variate: ControlVariate::Diagonal, ridge: 0.0, ..auto(1) };
        let _ = BatchEstimator::new(&config, 1, 1);
    }

    /// The memory of the runs is kept, although they borrow from the points.
    #[test]
    fn an_estimate_keeps_its_memory() {
        let [x, t, centre] = points(8, 1, 0.05, 0.95);
        let mut estimator = BatchEstimator::new(&auto(1), 8, 1).unwrap();
        let before = (estimator.seats.as_ptr(), estimator.seats.capacity());
        for _ in 0..3 {
            let q = |a: &[f32], _: usize, q: &mut [f32], g: &mut [f32]| critic(1, &mut 0, a, q, g);
            let view = Points { x: &x, t: &t, centre: &centre };
            estimator.estimate(view, 0.2, &mut Noise::new(6, 0), q, &mut Estimates::new(8, 1));
            assert_eq!((estimator.seats.as_ptr(), estimator.seats.capacity()), before);
        }
    }

    /// Points where the critic is not finite keep their latent and are counted, the others do not notice.
    #[test]
    fn points_without_an_estimate_keep_their_latent() {
        let (n, bad) = (6, [1, 4]);
        let [mut x, t, centre] = points(n, 1, 0.05, 0.45);
        let mut estimator = BatchEstimator::new(&auto(1), n, 1).unwrap();
        let mut run = |x: &[f32], blind: bool| {
            let mut out = Estimates::new(n, 1);
            let q = |a: &[f32], group: usize, q: &mut [f32], g: &mut [f32]| {
                critic(1, &mut 0, a, q, g);
                bad.iter().filter(|_| blind).for_each(|i| q[i * group..(i + 1) * group].fill(f32::NAN));
            };
            estimator.estimate(Points { x, t: &t, centre: &centre }, 0.2, &mut Noise::new(6, 0), q, &mut out);
            out
        };
        let sound = run(&x, false);
        let blind = run(&x, true);
        bad.iter().for_each(|i| x[*i] = f32::INFINITY);
        for damaged in [blind, run(&x, false)] {
            assert_eq!((damaged.refused, damaged.entropy.len()), (2, 4));
            for (i, latent) in centre.iter().enumerate() {
                let want = if bad.contains(&i) { (*latent, 1.0) } else { (sound.mean[i], sound.ess[i]) };
                assert_eq!((damaged.mean[i], damaged.ess[i]), want, "point {i}");
            }
        }
    }
}
