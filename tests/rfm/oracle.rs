//! Targets whose posteriors are known, and how they are known: quadrature with densities written again in f64.

use flowlet::flow::{Schedule, Source};
use flowlet::math;
use flowlet::rfm::{Estimator, RfmConfig, Support, Target};
use rand_core::SeedableRng;
use rand_xoshiro::Xoshiro128PlusPlus;

pub const SOURCES: [Source; 6] = [
    Source::Gaussian,
    Source::Laplace,
    Source::Logistic,
    Source::StudentT { dof: 3.0 },
    Source::Uniform,
    Source::TruncatedGaussian { bound: 1.5 },
];

pub const SCHEDULES: [Schedule; 4] =
    [Schedule::Linear, Schedule::VpCosine, Schedule::VP_LINEAR, Schedule::Ve { sigma_min: 0.05, sigma_max: 4.0 }];

/// `Q(a) / lambda` of two bumps over actions, and its slope.
pub fn action_value(a: f64) -> (f64, f64) {
    let bump = |centre: f64, height: f64| {
        let value = height * (-12.0 * (a - centre) * (a - centre)).exp();
        (value, -24.0 * (a - centre) * value)
    };
    let ((p, dp), (q, dq)) = (bump(-0.5, 3.0), bump(0.6, 2.5));
    (p + q, dp + dq)
}

/// The two bumps in every component: bimodal on tanh latents, or on the box (-1, 1) with a density that ends abruptly.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Bumps {
    Tanh,
    Box,
}

impl Bumps {
    pub fn log_density_f64(self, u: f64) -> f64 {
        match self {
            Self::Tanh => action_value(u.tanh()).0 - 2.0 * (u.abs() + (-2.0 * u.abs()).exp().ln_1p() - 2f64.ln()),
            Self::Box => action_value(u).0,
        }
    }

    /// Where the target is not zero, to a relative 1e-9.
    fn reach(self) -> f64 {
        if self == Self::Tanh { 12.0 } else { 1.0 }
    }
}

impl Target for Bumps {
    fn log_density(&mut self, u: &[f32]) -> f32 {
        let component = |u: &f32| match self {
            Self::Tanh => action_value(f64::from(u.tanh())).0 as f32 + math::ln_sech2(*u),
            Self::Box => action_value(f64::from(*u)).0 as f32,
        };
        u.iter().map(component).sum()
    }

    fn log_density_and_score(&mut self, u: &[f32], score: &mut [f32]) -> f32 {
        for (s, u) in score.iter_mut().zip(u) {
            *s = match self {
                Self::Tanh => {
                    let a = u.tanh();
                    (1.0 - a * a) * action_value(f64::from(a)).1 as f32 - 2.0 * a
                }
                Self::Box => action_value(f64::from(*u)).1 as f32,
            };
        }
        self.log_density(u)
    }

    fn support(&self) -> Support {
        if *self == Self::Tanh { Support::Unbounded } else { Support::Box { limit: 1.0 } }
    }
}

/// Log-density of a source up to a constant, and half the width of its support.
pub fn log_source(source: Source, z: f64) -> f64 {
    match source {
        Source::Laplace => -z.abs(),
        Source::Logistic => -z.abs() - 2.0 * (-z.abs()).exp().ln_1p(),
        Source::StudentT { dof } => {
            let dof = f64::from(dof);
            -0.5 * (dof + 1.0) * (z * z / dof).ln_1p()
        }
        Source::Uniform => 0.0,
        _ => -0.5 * z * z,
    }
}

/// What is known of a posterior in one dimension.
#[derive(Debug, Clone, Copy)]
pub struct Exact {
    pub mean: f64,
    pub deviation: f64,
    /// `ln` of the integral of target times source density, up to the source's constant.
    pub log_mass: f64,
}

/// The posterior of `Bumps` in one dimension by the midpoint rule on its support: 6000 cells of at most 0.004, whose
/// error is below 1e-4 of the spread for these densities, of curvature 100 at most.
pub fn exact(target: Bumps, schedule: Schedule, source: Source, t: f32, x: f64) -> Exact {
    let (alpha, beta) = (f64::from(schedule.alpha(t)), f64::from(schedule.beta(t)));
    let (reach, half) = (target.reach(), f64::from(source.support()) * beta / alpha);
    let (low, high) = ((x / alpha - half).max(-reach), (x / alpha + half).min(reach));
    let (cells, mut sums) = (6000, [0.0; 3]);
    let width = (high - low) / f64::from(cells);
    for i in 0..cells {
        let y = low + (f64::from(i) + 0.5) * width;
        let w = width * (target.log_density_f64(y) + log_source(source, (x - alpha * y) / beta)).exp();
        sums[0] += w;
        sums[1] += w * y;
        sums[2] += w * y * y;
    }
    let mean = sums[1] / sums[0];
    Exact { mean, deviation: (sums[2] / sums[0] - mean * mean).sqrt(), log_mass: sums[0].ln() }
}

/// A point that the path reaches: data 0.3 and noise 0.4.
pub fn point(schedule: Schedule, t: f32) -> f32 {
    0.3 * schedule.alpha(t) + 0.4 * schedule.beta(t)
}

/// What repeated estimates give.
#[derive(Debug, Clone, Copy)]
pub struct Repeated {
    pub mean: f64,
    /// Standard error of `mean`.
    pub error: f64,
    /// Standard deviation of one estimate.
    pub deviation: f64,
    /// Mean effective sample size.
    pub ess: f64,
    /// Mean and standard error of the normaliser, relative to `exp(reference)`.
    pub normalizer: [f64; 2],
}

/// Which result of a run is repeated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Asked {
    Mean,
    Score,
}

/// Mean and errors of `n` estimates in one dimension with `K` candidates.
pub fn repeat<const K: usize>(
    config: RfmConfig,
    (t, x): (f32, f32),
    particles: &[[f32; 1]],
    target: &mut impl Target,
    asked: Asked,
    n: usize,
    reference: f64,
) -> Repeated {
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(17);
    let mut estimator = Estimator::<1, K>::new(config);
    let (mut sums, mut ess) = ([0.0; 4], 0.0);
    for _ in 0..n {
        let found = match asked {
            Asked::Mean => estimator.estimate(t, &[x].into(), target, particles, &mut rng),
            Asked::Score => estimator.score(t, &[x].into(), target, particles, &mut rng),
        };
        let (value, posterior) = found.unwrap_or_else(|error| panic!("{config:?} t={t}: {error:?}"));
        let size = posterior.effective_sample_size;
        assert!(size >= 0.999 && size <= 1.001 * K as f32, "{config:?}: {size}");
        let (value, mass) = (f64::from(value[0]), (f64::from(posterior.log_normalizer) - reference).exp());
        ess += f64::from(size);
        for (sum, term) in sums.iter_mut().zip([value, value * value, mass, mass * mass]) {
            *sum += term;
        }
    }
    let [mean, square, mass, mass_square] = sums.map(|sum| sum / n as f64);
    let deviation = (square - mean * mean).max(0.0).sqrt();
    let mass_error = ((mass_square - mass * mass).max(0.0) / n as f64).sqrt();
    let error = deviation / (n as f64).sqrt();
    Repeated { mean, error, deviation, ess: ess / n as f64, normalizer: [mass, mass_error] }
}
