//! Targets whose posterior means are known: what an estimator is measured against.
//!
//! Both kinds are `p1(u) ~ exp(Q(tanh u) / lambda) prod_j sech^2(u_j)` with an action value Q of range 1.
//!
//! * [`Separable`]: `Q(a) = sum_j q_j(a_j)`, each `q_j` a few random sines; the sum is scaled so that the range of Q over
//!   `[-1, 1]^d` is 1. The posterior factorises, so its mean is one quadrature an axis at any `d`.
//! * [`GaussianMixture`]: `p1 = sum_i w_i N(m_i, sigma^2 I)` and `Q = lambda (ln p1 - sum_j ln sech^2 u_j)`. The width is
//!   at most 1 and as small as a range of 1 of Q over the cube of the means, `[-1.5, 1.5]^d`, demands; where even width 1
//!   gives more (high temperatures in many dimensions) the range is larger than 1. The posterior is a mixture.
//!
//! A target is what flowlet's estimators see, in `f32`; the exact posterior and exact draws are in `f64`. Nothing is
//! shared between the two but the constants. Deterministic given the noise it is drawn from; allocates at construction.
//! Cost: an evaluation of Q takes a few sines or exponentials an axis, a posterior mean by quadrature thousands.

use crate::noise::Noise;
use flowlet::rfm::Target;

/// Sines an axis of a separable Q.
const SINES: usize = 3;
/// Components of a mixture.
const COMPONENTS: usize = 4;
/// Largest dimension: the range of a mixture's Q is looked for from every corner of the cube, 2^d of them.
pub const MOST_DIMS: usize = 12;
/// Half-width of the cube that the means of a mixture are drawn from.
const CUBE: f64 = 1.5;
/// Half-width of the quadrature grid: sech^2 is below 1e-13 of its top beyond.
const REACH: f64 = 16.0;
/// Nodes of the quadrature grid. The step, 1/200, is a quarter of the narrowest width that the bench meets (t = 0.98,
/// or a peak of Q at lambda = 0.005), where the trapezoid rule is exact to rounding.
const NODES: usize = 6401;

/// A target with an exact posterior mean and exact draws.
#[derive(Clone, Debug)]
pub enum Known {
    /// A separable action value.
    Separable(Separable),
    /// A Gaussian mixture over latents.
    Mixture(GaussianMixture),
}

impl Known {
    /// `E[X_1 | t X_1 + (1 - t) X_0 = x]` for a Gaussian `X_0`, into `mean`.
    pub fn posterior_mean(&self, t: f64, x: &[f64], mean: &mut [f64]) {
        match self {
            Self::Separable(target) => target.posterior_mean(t, x, mean),
            Self::Mixture(target) => target.posterior_mean(t, x, mean),
        }
    }

    /// A draw from the target.
    pub fn draw(&self, noise: &mut Noise, out: &mut [f64]) {
        match self {
            Self::Separable(target) => target.draw(noise, out),
            Self::Mixture(target) => target.draw(noise, out),
        }
    }
}

impl Target for Known {
    fn log_density(&mut self, latent: &[f32]) -> f32 {
        match self {
            Self::Separable(target) => target.log_density(latent),
            Self::Mixture(target) => target.log_density(latent),
        }
    }

    fn log_density_and_score(&mut self, latent: &[f32], score: &mut [f32]) -> f32 {
        match self {
            Self::Separable(target) => target.log_density_and_score(latent, score),
            Self::Mixture(target) => target.log_density_and_score(latent, score),
        }
    }
}

/// One term `amplitude sin(frequency a + phase)`.
#[derive(Clone, Copy, Debug)]
struct Sine {
    amplitude: f64,
    frequency: f64,
    phase: f64,
}

/// `Q(a) = sum_j q_j(a_j)` at a temperature.
#[derive(Clone, Debug)]
pub struct Separable {
    lambda: f64,
    axes: Vec<[Sine; SINES]>,
    /// The same with amplitudes over lambda: `[amplitude, frequency, phase]`.
    scaled: Vec<[[f32; 3]; SINES]>,
    /// `ln p1` of every axis on the quadrature grid, its maximum zero.
    log_density: Vec<Vec<f64>>,
    /// The distribution function of every axis at the nodes.
    cumulative: Vec<Vec<f64>>,
}

impl Separable {
    /// A random one: amplitudes standard normal, frequencies uniform in (0.5, 5), phases uniform.
    pub fn random(dim: usize, lambda: f64, noise: &mut Noise) -> Self {
        let mut axes = Vec::with_capacity(dim);
        for _ in 0..dim {
            let mut amplitudes = [0.0; SINES];
            noise.gaussian(&mut amplitudes);
            axes.push(amplitudes.map(|amplitude| Sine {
                amplitude: f64::from(amplitude),
                frequency: 0.5 + 4.5 * f64::from(noise.uniform()),
                phase: std::f64::consts::TAU * f64::from(noise.uniform()),
            }));
        }
        let whole: f64 = axes.iter().map(|axis| range_of(|a| q(axis, a))).sum();
        axes.iter_mut().flatten().for_each(|sine| sine.amplitude /= whole);
        let of = |sine: &Sine| [(sine.amplitude / lambda) as f32, sine.frequency as f32, sine.phase as f32];
        let scaled = axes.iter().map(|axis| axis.each_ref().map(of)).collect();
        let log_density: Vec<Vec<f64>> = axes
            .iter()
            .map(|axis| {
                let ln = |i| q(axis, node(i).tanh()) / lambda + ln_sech2(node(i));
                let values: Vec<f64> = (0..NODES).map(ln).collect();
                let top = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                values.iter().map(|v| v - top).collect()
            })
            .collect();
        let cumulative = log_density.iter().map(|axis| cumulative_of(axis)).collect();
        Self { lambda, axes, scaled, log_density, cumulative }
    }

    /// Q at an action.
    pub fn value(&self, action: &[f64]) -> f64 {
        self.axes.iter().zip(action).map(|(axis, a)| q(axis, *a)).sum()
    }

    fn posterior_mean(&self, t: f64, x: &[f64], mean: &mut [f64]) {
        // Beyond this many standard deviations the source's density outweighs any Q, by 60 nats.
        let reach = (2.0 * (1.0 / self.lambda + 60.0)).sqrt() * (1.0 - t) / t;
        for ((mean, x), axis) in mean.iter_mut().zip(x).zip(&self.log_density) {
            let inside = |i: &usize| (node(*i) - x / t).abs() <= reach;
            let log_bridge = |u: f64| -0.5 * ((x - t * u) / (1.0 - t)).powi(2);
            let nodes = || (0..NODES).filter(inside).map(|i| (node(i), axis[i] + log_bridge(node(i))));
            let top = nodes().map(|(_, ln)| ln).fold(f64::NEG_INFINITY, f64::max);
            let (mut total, mut first) = (0.0, 0.0);
            for (u, ln) in nodes() {
                let weight = (ln - top).exp();
                total += weight;
                first += weight * u;
            }
            *mean = first / total;
        }
    }

    /// By the inverse of each axis' distribution function, linear between the nodes.
    fn draw(&self, noise: &mut Noise, out: &mut [f64]) {
        for (u, cumulative) in out.iter_mut().zip(&self.cumulative) {
            let share = f64::from(noise.uniform());
            let right = cumulative.partition_point(|c| *c < share).clamp(1, NODES - 1);
            let (low, high) = (cumulative[right - 1], cumulative[right]);
            *u = node(right - 1) + (node(right) - node(right - 1)) * ((share - low) / (high - low)).clamp(0.0, 1.0);
        }
    }
}

impl Target for Separable {
    fn log_density(&mut self, latent: &[f32]) -> f32 {
        let mut sum = 0.0;
        for (u, axis) in latent.iter().zip(&self.scaled) {
            let (a, jacobian) = tanh_and_ln_sech2(*u);
            sum += axis.iter().map(|[c, w, phase]| c * (w * a + phase).sin()).sum::<f32>() + jacobian;
        }
        sum
    }

    fn log_density_and_score(&mut self, latent: &[f32], score: &mut [f32]) -> f32 {
        let mut sum = 0.0;
        for ((u, axis), score) in latent.iter().zip(&self.scaled).zip(score) {
            let (a, jacobian) = tanh_and_ln_sech2(*u);
            let (mut value, mut slope) = (0.0, 0.0);
            for [c, w, phase] in axis {
                let (sin, cos) = (w * a + phase).sin_cos();
                value += c * sin;
                slope += c * w * cos;
            }
            sum += value + jacobian;
            *score = (1.0 - a * a) * slope - 2.0 * a;
        }
        sum
    }
}

/// An isotropic Gaussian mixture over latents.
#[derive(Clone, Debug)]
pub struct GaussianMixture {
    dim: usize,
    sigma: f64,
    shares: Vec<f64>,
    /// Rows of `dim`.
    means: Vec<f64>,
    /// Range of Q over the cube.
    range: f64,
    /// `ln` of the shares and the means as the target sees them.
    target_logs: Vec<f32>,
    target_means: Vec<f32>,
}

impl GaussianMixture {
    /// A random one: means uniform in the cube, shares proportional to uniform numbers of (0.5, 1.5).
    pub fn random(dim: usize, lambda: f64, noise: &mut Noise) -> Self {
        let mut means = vec![0.0_f32; COMPONENTS * dim];
        noise.uniform_in(&mut means, -CUBE as f32, CUBE as f32);
        let mut shares = [0.0; COMPONENTS];
        noise.uniform_in(&mut shares, 0.5, 1.5);
        let total: f64 = shares.iter().map(|s| f64::from(*s)).sum();
        let mut mixture = Self {
            dim,
            sigma: 1.0,
            shares: shares.iter().map(|s| f64::from(*s) / total).collect(),
            means: means.iter().map(|m| f64::from(*m)).collect(),
            range: 0.0,
            target_logs: shares.iter().map(|s| (f64::from(*s) / total).ln() as f32).collect(),
            target_means: means,
        };
        // Q falls as the inverse square of a small width, so its range crosses 1 inside (0.01, 1) or not at all.
        let (mut low, mut high) = (0.01, 1.0);
        if lambda * mixture.spread() < 1.0 {
            for _ in 0..30 {
                mixture.sigma = 0.5 * (low + high);
                if lambda * mixture.spread() > 1.0 {
                    low = mixture.sigma;
                } else {
                    high = mixture.sigma;
                }
            }
        }
        mixture.range = lambda * mixture.spread();
        mixture
    }

    /// Range of Q over the cube of the means.
    pub fn range(&self) -> f64 {
        self.range
    }

    /// Standard deviation of a component.
    pub fn width(&self) -> f64 {
        self.sigma
    }

    fn components(&self) -> impl Iterator<Item = (f64, &[f64])> {
        self.shares.iter().copied().zip(self.means.chunks_exact(self.dim))
    }

    /// `Q / lambda` at a latent, up to a constant.
    fn value(&self, latent: &[f64]) -> f64 {
        let logit = |(share, mean): (f64, &[f64])| {
            let square: f64 = latent.iter().zip(mean).map(|(u, m)| (u - m) * (u - m)).sum();
            share.ln() - 0.5 * square / (self.sigma * self.sigma)
        };
        let top = self.components().map(logit).fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = self.components().map(|c| (logit(c) - top).exp()).sum();
        top + total.ln() - latent.iter().map(|u| ln_sech2(*u)).sum::<f64>()
    }

    /// Range of [`Self::value`] over the cube: the best of means and corners, improved axis by axis.
    fn spread(&self) -> f64 {
        let corner = |bits: usize| (0..self.dim).map(|j| if bits >> j & 1 == 1 { CUBE } else { -CUBE }).collect();
        let corners = (0..1_usize << self.dim.min(MOST_DIMS)).map(corner);
        let starts = self.means.chunks_exact(self.dim).map(<[f64]>::to_vec).chain(corners);
        let mut starts: Vec<(f64, Vec<f64>)> = starts.map(|start| (self.value(&start), start)).collect();
        starts.sort_by(|a, b| a.0.total_cmp(&b.0));
        let climb = |sign: f64| move |(_, start): &(f64, Vec<f64>)| self.climb(start, sign);
        let low = starts.iter().take(COMPONENTS).map(climb(-1.0)).fold(f64::INFINITY, f64::min);
        let high = starts.iter().rev().take(COMPONENTS).map(climb(1.0)).fold(f64::NEG_INFINITY, f64::max);
        high - low
    }

    /// The extreme value that two sweeps of axis searches reach from a start.
    fn climb(&self, start: &[f64], sign: f64) -> f64 {
        let mut at = start.to_vec();
        let mut best = sign * self.value(&at);
        for j in (0..self.dim).chain(0..self.dim) {
            let mut place = at[j];
            for i in 0..=60 {
                at[j] = CUBE * (f64::from(i) / 30.0 - 1.0);
                let value = sign * self.value(&at);
                if value > best {
                    (best, place) = (value, at[j]);
                }
            }
            at[j] = place;
        }
        sign * best
    }

    fn posterior_mean(&self, t: f64, x: &[f64], mean: &mut [f64]) {
        let (variance, noise) = (self.sigma * self.sigma, (1.0 - t) * (1.0 - t));
        let evidence = t * t * variance + noise;
        let logit = |(share, centre): (f64, &[f64])| {
            let square: f64 = x.iter().zip(centre).map(|(x, m)| (x - t * m) * (x - t * m)).sum();
            share.ln() - 0.5 * square / evidence
        };
        let top = self.components().map(logit).fold(f64::NEG_INFINITY, f64::max);
        let mut total = 0.0;
        mean.fill(0.0);
        for (share, centre) in self.components() {
            let weight = (logit((share, centre)) - top).exp();
            total += weight;
            for ((mean, x), m) in mean.iter_mut().zip(x).zip(centre) {
                *mean += weight * (m * noise + t * x * variance) / evidence;
            }
        }
        mean.iter_mut().for_each(|m| *m /= total);
    }

    fn draw(&self, noise: &mut Noise, out: &mut [f64]) {
        let mut rest = f64::from(noise.uniform());
        let mut chosen = COMPONENTS - 1;
        for (i, share) in self.shares.iter().enumerate() {
            if rest < *share {
                chosen = i;
                break;
            }
            rest -= share;
        }
        let mut gaussian = vec![0.0; self.dim];
        noise.gaussian(&mut gaussian);
        for ((u, m), z) in out.iter_mut().zip(&self.means[chosen * self.dim..]).zip(gaussian) {
            *u = m + self.sigma * f64::from(z);
        }
    }

    /// Logits of the components at a latent, their largest value, and the sum of their exponentials below it.
    fn logits(&self, latent: &[f32]) -> ([f32; COMPONENTS], f32, f32) {
        let precision = (1.0 / (self.sigma * self.sigma)) as f32;
        let mut logits = [0.0; COMPONENTS];
        let rows = self.target_logs.iter().zip(self.target_means.chunks_exact(self.dim));
        for (logit, (log_share, mean)) in logits.iter_mut().zip(rows) {
            let square: f32 = latent.iter().zip(mean).map(|(u, m)| (u - m) * (u - m)).sum();
            *logit = log_share - 0.5 * precision * square;
        }
        let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total = logits.iter().map(|l| (l - top).exp()).sum();
        (logits, top, total)
    }
}

impl Target for GaussianMixture {
    fn log_density(&mut self, latent: &[f32]) -> f32 {
        let (_, top, total) = self.logits(latent);
        top + total.ln()
    }

    fn log_density_and_score(&mut self, latent: &[f32], score: &mut [f32]) -> f32 {
        let (logits, top, total) = self.logits(latent);
        let precision = (1.0 / (self.sigma * self.sigma)) as f32;
        score.fill(0.0);
        for (logit, mean) in logits.iter().zip(self.target_means.chunks_exact(self.dim)) {
            let share = precision * (logit - top).exp() / total;
            for ((s, u), m) in score.iter_mut().zip(latent).zip(mean) {
                *s += share * (m - u);
            }
        }
        top + total.ln()
    }
}

/// A node of the quadrature grid.
fn node(i: usize) -> f64 {
    REACH * (2.0 * i as f64 / (NODES - 1) as f64 - 1.0)
}

fn q(axis: &[Sine; SINES], a: f64) -> f64 {
    axis.iter().map(|s| s.amplitude * (s.frequency * a + s.phase).sin()).sum()
}

/// Range over [-1, 1], on 4001 points: short by less than 1e-6 of it at the frequencies used here.
fn range_of(f: impl Fn(f64) -> f64) -> f64 {
    let values = (0..=4000).map(|i| f(f64::from(i) / 2000.0 - 1.0));
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
    high - low
}

/// The distribution function of an unnormalised log-density on the grid, by the trapezoid rule.
fn cumulative_of(log_density: &[f64]) -> Vec<f64> {
    let mut total = 0.0;
    let mut sums = vec![0.0; log_density.len()];
    for (sum, pair) in sums[1..].iter_mut().zip(log_density.windows(2)) {
        total += 0.5 * (pair[0].exp() + pair[1].exp());
        *sum = total;
    }
    sums.iter_mut().for_each(|sum| *sum /= total);
    sums
}

fn ln_sech2(u: f64) -> f64 {
    let m = u.abs();
    2.0 * (std::f64::consts::LN_2 - m - (-2.0 * m).exp().ln_1p())
}

/// `tanh u` and `ln sech^2 u` by one exponential.
fn tanh_and_ln_sech2(u: f32) -> (f32, f32) {
    let m = u.abs();
    let e = (-2.0 * m).exp();
    (((1.0 - e) / (1.0 + e)).copysign(u), 2.0 * (std::f32::consts::LN_2 - m - e.ln_1p()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(dim: usize, lambda: f64, seed: u64) -> [Known; 2] {
        let mut noise = Noise::new(seed, 0);
        let separable = Separable::random(dim, lambda, &mut noise);
        [Known::Separable(separable), Known::Mixture(GaussianMixture::random(dim, lambda, &mut noise))]
    }

    #[test]
    fn scores_are_the_slopes_of_the_log_densities() {
        for (dim, lambda) in [(1, 1.0), (2, 0.2), (6, 0.05)] {
            for mut target in both(dim, lambda, 3) {
                let mut noise = Noise::new(4, 1);
                for _ in 0..40 {
                    let mut latent = vec![0.0; dim];
                    noise.uniform_in(&mut latent, -2.0, 2.0);
                    let mut score = vec![0.0; dim];
                    let value = target.log_density_and_score(&latent, &mut score);
                    assert!((value - target.log_density(&latent)).abs() < 1e-5 * (1.0 + value.abs()));
                    for j in 0..dim {
                        let mut at = |h: f32| {
                            let mut moved = latent.clone();
                            moved[j] += h;
                            f64::from(target.log_density(&moved))
                        };
                        // Fourth-order differences; at this step truncation (h^4 f^(5) / 30) and rounding (values near
                        // 50 in f32, over h) are both below 1e-3.
                        let h = 1.0 / 64.0;
                        let slope = (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * f64::from(h));
                        let error = (slope - f64::from(score[j])).abs();
                        assert!(error < 4e-3 * (1.0 + slope.abs()), "{dim} {lambda}: {slope} {}", score[j]);
                    }
                }
            }
        }
    }

    /// The f32 target is the f64 oracle's density: differences of log-densities between points agree.
    #[test]
    fn target_and_oracle_are_the_same_density() {
        for lambda in [1.0, 0.05, 0.005] {
            for mut target in both(3, lambda, 8) {
                let exact = |latent: &[f32]| {
                    let u: Vec<f64> = latent.iter().map(|u| f64::from(*u)).collect();
                    let jacobian: f64 = u.iter().map(|u| ln_sech2(*u)).sum();
                    match &target {
                        Known::Separable(s) => {
                            s.value(&u.iter().map(|u| u.tanh()).collect::<Vec<_>>()) / lambda + jacobian
                        }
                        Known::Mixture(m) => m.value(&u) + jacobian,
                    }
                };
                let mut noise = Noise::new(5, 5);
                let points: Vec<[f32; 3]> = (0..50)
                    .map(|_| {
                        let mut u = [0.0; 3];
                        noise.uniform_in(&mut u, -3.0, 3.0);
                        u
                    })
                    .collect();
                let wanted: Vec<f64> = points.iter().map(|u| exact(u)).collect();
                let shift = wanted[0] - f64::from(target.log_density(&points[0]));
                for (u, wanted) in points.iter().zip(wanted) {
                    let seen = f64::from(target.log_density(u)) + shift;
                    // Rounding of values up to 1 / lambda in f32.
                    assert!((seen - wanted).abs() < 1e-6 * (20.0 + wanted.abs() + 1.0 / lambda), "{seen} {wanted}");
                }
            }
        }
    }

    #[test]
    fn the_range_of_q_is_one() {
        for dim in [1, 3] {
            let mut noise = Noise::new(11, 0);
            let target = Separable::random(dim, 0.1, &mut noise);
            let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
            for _ in 0..200_000 {
                let mut action = [0.0_f32; 3];
                noise.uniform_in(&mut action, -1.0, 1.0);
                let value = target.value(&action.map(f64::from)[..dim]);
                (low, high) = (low.min(value), high.max(value));
            }
            // Random points come close from below: never more than 1, nearly 1.
            assert!(high - low <= 1.0 + 1e-6 && high - low > 0.97, "{dim}: {}", high - low);
        }
        for (dim, lambda) in [(1, 0.02), (2, 0.05), (6, 0.02), (6, 0.005)] {
            let mut noise = Noise::new(12, 0);
            let target = GaussianMixture::random(dim, lambda, &mut noise);
            assert!((target.range() - 1.0).abs() < 1e-3 && target.width() < 1.0, "{dim} {lambda}: {}", target.range());
            let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
            for _ in 0..20_000 {
                let mut latent = vec![0.0; dim];
                noise.uniform_in(&mut latent, -CUBE as f32, CUBE as f32);
                let latent: Vec<f64> = latent.iter().map(|u| f64::from(*u)).collect();
                let value = lambda * target.value(&latent);
                (low, high) = (low.min(value), high.max(value));
            }
            assert!(high - low <= 1.0 + 1e-3, "{dim} {lambda}: {}", high - low);
            assert!(high - low > if dim > 2 { 0.5 } else { 0.95 }, "{dim} {lambda}: {}", high - low);
        }
    }

    /// In one dimension a mixture is put on the quadrature grid of a separable target: two independent ways to the mean.
    #[test]
    fn quadrature_agrees_with_the_closed_form() {
        for lambda in [1.0, 0.05, 0.005] {
            let mixture = GaussianMixture::random(1, lambda, &mut Noise::new(21, 0));
            let mut grid = Separable::random(1, lambda, &mut Noise::new(22, 0));
            grid.log_density[0] = (0..NODES).map(|i| mixture.value(&[node(i)]) + ln_sech2(node(i))).collect();
            for t in [0.02, 0.35, 0.8, 0.98] {
                for x in [-1.4, -0.1, 0.6] {
                    let (mut closed, mut quadrature) = ([0.0], [0.0]);
                    mixture.posterior_mean(t, &[x], &mut closed);
                    grid.posterior_mean(t, &[x], &mut quadrature);
                    assert!((closed[0] - quadrature[0]).abs() < 1e-9, "{lambda} {t} {x}: {closed:?} {quadrature:?}");
                }
            }
        }
    }

    /// Bayes by brute force: draws of (X_1, X_0) that land near x average to the posterior mean.
    #[test]
    fn posterior_means_are_those_of_the_draws() {
        for target in both(1, 0.2, 31) {
            let mut noise = Noise::new(32, 0);
            let (t, x, half) = (0.4, 0.2, 0.02);
            let (mut count, mut sum, mut square) = (0.0, 0.0, 0.0);
            let mut normal = vec![0.0; 400_000];
            noise.gaussian(&mut normal);
            for z in normal {
                let mut u = [0.0];
                target.draw(&mut noise, &mut u);
                if (t * u[0] + (1.0 - t) * f64::from(z) - x).abs() < half {
                    (count, sum, square) = (count + 1.0, sum + u[0], square + u[0] * u[0]);
                }
            }
            let mut exact = [0.0];
            target.posterior_mean(t, &[x], &mut exact);
            let mean = sum / count;
            let error = ((square / count - mean * mean) / count).sqrt();
            // Five standard errors; the width of the window adds less than its square.
            assert!((mean - exact[0]).abs() < 5.0 * error + half * half, "{mean} {exact:?} {error}");
            assert!(count > 5_000.0);
        }
    }

    #[test]
    fn draws_are_equal_for_equal_noise() {
        for target in both(2, 0.05, 41) {
            let draw = || {
                let mut u = [0.0; 2];
                target.draw(&mut Noise::new(1, 2), &mut u);
                u.map(f64::to_bits)
            };
            assert_eq!(draw(), draw());
        }
    }
}
