//! Four two-dimensional energies in closed form: what the toy methods learn to sample, from the energy alone.
//!
//! Every density is smooth and positive where it matters, comes with its gradient, and is scaled to about unit
//! variance a component, so that the usual sources and proposals cover it. [`Toy`] is a flowlet
//! [`Target`] on the unbounded plane. [`Grid`] tabulates a density for measuring: exact samples up to a cell of 0.014,
//! exact masses of the modes. No method is trained on them.
//!
//! Deterministic, no panics; an evaluation costs a few exponentials and allocates nothing.

use crate::nn::math::{exp, ln, sigmoid};
use crate::noise::Noise;
use crate::{Error, Result};
use flowlet::rfm::Target;
use std::f32::consts::{FRAC_PI_4, PI};

/// A toy density.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toy {
    /// Two interleaved half circles of radius 1.2, blurred to a standard deviation of 0.1 across.
    TwoMoons,
    /// Eight Gaussians of standard deviation 0.14 on a circle of radius 1.4.
    EightGaussians,
    /// Three rings of radii 0.5, 1.1 and 1.7, blurred to a standard deviation of 0.1 across.
    Rings,
    /// The eight dark cells of a 4 x 4 board on (-1.75, 1.75), blurred by a logistic of scale 0.05 a component.
    Checkerboard,
}

const MOON_RADIUS: f32 = 1.2;
const MOON_WIDTH: f32 = 0.1;
/// Scale of the logistic that ends a half circle.
const MOON_END: f32 = 0.08;
const MOON_SECTORS: usize = 6;
const CIRCLE: f32 = 1.4;
const BLOB_WIDTH: f32 = 0.14;
const RINGS: [f32; 3] = [0.5, 1.1, 1.7];
const RING_WIDTH: f32 = 0.1;
const RING_SECTORS: usize = 8;
const CELL: f32 = 0.875;
const CELL_EDGE: f32 = 0.05;
/// Standard deviations from a ridge or centre within which a point counts to its mode.
const REACH: f32 = 3.0;

impl Toy {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::TwoMoons, Self::EightGaussians, Self::Rings, Self::Checkerboard];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TwoMoons => "two-moons",
            Self::EightGaussians => "eight-gaussians",
            Self::Rings => "rings",
            Self::Checkerboard => "checkerboard",
        }
    }

    /// The toy of that name; an unknown one is refused with the list.
    pub fn from_name(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|toy| toy.name() == name);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::usage(format!("there is no toy '{name}': use one of {names}, or all"))
        })
    }

    /// `ln p` at a point, up to a constant.
    pub fn log_density(self, x: [f32; 2]) -> f32 {
        self.log_density_and_score(x).0
    }

    /// `ln p` at a point, up to a constant, and its gradient.
    pub fn log_density_and_score(self, x: [f32; 2]) -> (f32, [f32; 2]) {
        match self {
            Self::TwoMoons => log_sum(moons(x)),
            Self::EightGaussians => log_sum(blobs(x)),
            Self::Rings => {
                let radius = (x[0] * x[0] + x[1] * x[1]).sqrt();
                let (value, [slope, _]) =
                    log_sum(RINGS.map(|ring| {
                        (bump(radius - ring, RING_WIDTH), [(ring - radius) / (RING_WIDTH * RING_WIDTH), 0.0])
                    }));
                let share = slope / radius.max(1e-6);
                (value, [share * x[0], share * x[1]])
            }
            Self::Checkerboard => checkerboard(x),
        }
    }

    /// Number of modes: Gaussians, cells, or equal sectors of the curves.
    pub const fn modes(self) -> usize {
        match self {
            Self::TwoMoons => 2 * MOON_SECTORS,
            Self::EightGaussians | Self::Checkerboard => 8,
            Self::Rings => RINGS.len() * RING_SECTORS,
        }
    }

    /// The mode that a point lies in; none more than three standard deviations off a curve or centre, or on a light
    /// cell.
    pub fn mode(self, x: [f32; 2]) -> Option<usize> {
        let sector =
            |angle: f32, span: f32, count: usize| ((angle / span * count as f32).max(0.0) as usize).min(count - 1);
        match self {
            Self::TwoMoons => (0..2).find_map(|moon| {
                let (dx, dy) = moon_frame(moon, x);
                let radius = (dx * dx + dy * dy).sqrt();
                let near = (radius - MOON_RADIUS).abs() < REACH * MOON_WIDTH && dy > -REACH * MOON_END;
                near.then(|| moon * MOON_SECTORS + sector(dy.max(0.0).atan2(dx), PI, MOON_SECTORS))
            }),
            Self::EightGaussians => (0..8).find(|&i| {
                let (dx, dy) = blob_offset(i, x);
                dx * dx + dy * dy < (REACH * BLOB_WIDTH) * (REACH * BLOB_WIDTH)
            }),
            Self::Rings => {
                let radius = (x[0] * x[0] + x[1] * x[1]).sqrt();
                let ring = RINGS.iter().position(|ring| (radius - ring).abs() < REACH * RING_WIDTH)?;
                Some(ring * RING_SECTORS + sector(x[1].atan2(x[0]) + PI, 2.0 * PI, RING_SECTORS))
            }
            Self::Checkerboard => {
                let cell =
                    |x: f32| Some((x / CELL + 2.0).floor()).filter(|c| (0.0..4.0).contains(c)).map(|c| c as usize);
                let (column, row) = (cell(x[0])?, cell(x[1])?);
                (column + row).is_multiple_of(2).then_some(column * 2 + row / 2)
            }
        }
    }
}

impl Target for Toy {
    fn log_density(&mut self, latent: &[f32]) -> f32 {
        match *latent {
            [x, y] => Toy::log_density(*self, [x, y]),
            _ => f32::NEG_INFINITY,
        }
    }

    fn log_density_and_score(&mut self, latent: &[f32], score: &mut [f32]) -> f32 {
        match *latent {
            [x, y] => {
                let (value, gradient) = Toy::log_density_and_score(*self, [x, y]);
                score.copy_from_slice(&gradient);
                value
            }
            _ => f32::NEG_INFINITY,
        }
    }
}

/// `-z^2 / (2 s^2)`.
fn bump(z: f32, s: f32) -> f32 {
    -0.5 * (z / s) * (z / s)
}

/// `ln sum exp` of terms with gradients: its gradient is theirs, weighted by their shares.
fn log_sum<const N: usize>(terms: [(f32, [f32; 2]); N]) -> (f32, [f32; 2]) {
    let highest = terms.iter().fold(f32::NEG_INFINITY, |a, term| a.max(term.0));
    let (mut total, mut gradient) = (0.0, [0.0; 2]);
    for (value, slope) in terms {
        let share = exp(value - highest);
        total += share;
        gradient[0] += share * slope[0];
        gradient[1] += share * slope[1];
    }
    (highest + ln(total), gradient.map(|g| g / total))
}

/// A point in a moon's own frame, where the moon is the upper half circle around the origin.
fn moon_frame(moon: usize, x: [f32; 2]) -> (f32, f32) {
    let side = if moon == 0 { 1.0 } else { -1.0 };
    (side * x[0] + 0.5 * MOON_RADIUS, side * x[1] + 0.25 * MOON_RADIUS)
}

fn moons(x: [f32; 2]) -> [(f32, [f32; 2]); 2] {
    [0, 1].map(|moon| {
        let side = if moon == 0 { 1.0 } else { -1.0 };
        let (dx, dy) = moon_frame(moon, x);
        let radius = (dx * dx + dy * dy).sqrt();
        // ln sigmoid(z) = z/2 - ln(2 cosh(z/2)), finite for every z.
        let half = 0.5 * dy / MOON_END;
        let value = bump(radius - MOON_RADIUS, MOON_WIDTH) + half - ln_2_cosh(half);
        let radial = (MOON_RADIUS - radius) / (MOON_WIDTH * MOON_WIDTH) / radius.max(1e-6);
        let end = sigmoid(-dy / MOON_END) / MOON_END;
        (value, [side * radial * dx, side * (radial * dy + end)])
    })
}

fn blob_offset(i: usize, x: [f32; 2]) -> (f32, f32) {
    let (sin, cos) = (i as f32 * FRAC_PI_4).sin_cos();
    (x[0] - CIRCLE * cos, x[1] - CIRCLE * sin)
}

fn blobs(x: [f32; 2]) -> [(f32, [f32; 2]); 8] {
    std::array::from_fn(|i| {
        let (dx, dy) = blob_offset(i, x);
        let precision = 1.0 / (BLOB_WIDTH * BLOB_WIDTH);
        (-0.5 * precision * (dx * dx + dy * dy), [-precision * dx, -precision * dy])
    })
}

/// `ln(2 cosh z)`.
fn ln_2_cosh(z: f32) -> f32 {
    ln_2_cosh_and_tanh(z).0
}

/// `ln(2 cosh z)` and its slope `tanh z`, which share an exponential.
fn ln_2_cosh_and_tanh(z: f32) -> (f32, f32) {
    let m = exp(-2.0 * z.abs());
    (z.abs() + ln(1.0 + m), ((1.0 - m) / (1.0 + m)).copysign(z))
}

/// `ln` of the blurred indicators of the even and the odd cells along one axis up to a constant, with their slopes.
///
/// A cell's indicator is a difference of two logistic functions: `sinh(a - b) / (2 cosh(a) cosh(b))` with `a`, `b` half
/// the distances to its edges in units of the blur; `a - b` is the same for every cell.
fn stripes(x: f32) -> [(f32, [f32; 2]); 2] {
    let edges: [_; 5] =
        std::array::from_fn(|i| ln_2_cosh_and_tanh(0.5 * (x / CELL_EDGE - (i as f32 - 2.0) * CELL / CELL_EDGE)));
    [0, 1].map(|parity| {
        log_sum([parity, parity + 2].map(|cell| {
            let ((low, low_slope), (high, high_slope)) = (edges[cell], edges[cell + 1]);
            (-low - high, [-0.5 * (low_slope + high_slope) / CELL_EDGE, 0.0])
        }))
    })
}

/// The sum over dark cells of products of indicators is `even(x) even(y) + odd(x) odd(y)`.
fn checkerboard(x: [f32; 2]) -> (f32, [f32; 2]) {
    let [along, across] = x.map(stripes);
    log_sum([0, 1].map(|parity| (along[parity].0 + across[parity].0, [along[parity].1[0], across[parity].1[0]])))
}

/// A density on a grid over (-3.5, 3.5)^2: exact samples and masses, for measuring only.
#[derive(Clone, Debug)]
pub struct Grid {
    toy: Toy,
    /// Running sums of the cells' masses; the last is 1.
    cumulative: Vec<f64>,
}

impl Grid {
    /// Cells a side.
    const SIDE: usize = 512;
    const HALF: f32 = 3.5;

    /// Tabulates a toy.
    pub fn new(toy: Toy) -> Self {
        let mut sum = 0.0;
        let mut cumulative: Vec<f64> = (0..Self::SIDE * Self::SIDE)
            .map(|i| {
                sum += f64::from(toy.log_density(Self::centre(i))).exp();
                sum
            })
            .collect();
        cumulative.iter_mut().for_each(|c| *c /= sum);
        Self { toy, cumulative }
    }

    fn centre(i: usize) -> [f32; 2] {
        [i % Self::SIDE, i / Self::SIDE].map(|c| ((c as f32 + 0.5) / Self::SIDE as f32 * 2.0 - 1.0) * Self::HALF)
    }

    /// `n` independent exact samples, `n x 2`.
    pub fn sample(&self, n: usize, noise: &mut Noise) -> Vec<f32> {
        (0..n).flat_map(|_| self.at(f64::from(noise.uniform()), noise)).collect()
    }

    /// `n` exact samples, one from each `n`-th of the mass in the grid's order, `n x 2`: less scatter than
    /// independent ones.
    pub fn stratified(&self, n: usize, noise: &mut Noise) -> Vec<f32> {
        (0..n).flat_map(|i| self.at((i as f64 + f64::from(noise.uniform())) / n as f64, noise)).collect()
    }

    /// A uniform point of the cell at a share of the mass.
    fn at(&self, share: f64, noise: &mut Noise) -> [f32; 2] {
        let i = self.cumulative.partition_point(|c| *c <= share).min(self.cumulative.len() - 1);
        let step = 2.0 * Self::HALF / Self::SIDE as f32;
        Self::centre(i).map(|c| c + step * (noise.uniform() - 0.5))
    }

    /// The mass of every mode.
    pub fn masses(&self) -> Vec<f64> {
        let mut masses = vec![0.0; self.toy.modes()];
        let mut before = 0.0;
        for (i, c) in self.cumulative.iter().enumerate() {
            if let Some(mode) = self.toy.mode(Self::centre(i)) {
                masses[mode] += c - before;
            }
            before = *c;
        }
        masses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uniform_points(n: usize, half: f32, seed: u64) -> Vec<[f32; 2]> {
        let mut noise = Noise::new(seed, 0);
        let mut points = vec![[0.0; 2]; n];
        points.iter_mut().for_each(|p| noise.uniform_in(p, -half, half));
        points
    }

    #[test]
    fn scores_equal_central_differences() {
        for toy in Toy::ALL {
            for x in uniform_points(2_000, 3.0, 1) {
                let (value, score) = toy.log_density_and_score(x);
                assert_eq!(value, toy.log_density(x));
                for axis in 0..2 {
                    let at = |h: f32| {
                        let mut moved = x;
                        moved[axis] += h;
                        f64::from(toy.log_density(moved))
                    };
                    // Fourth order: the truncation is h^4/30 times a fifth derivative, which where two ridges or an
                    // edge and a cell meet is some 24 / 0.05^5; the rounding of values near 500 is 6e-5 / h.
                    let h = 1.0 / 256.0;
                    let slope = (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * f64::from(h));
                    let error = (slope - f64::from(score[axis])).abs();
                    // The rings have a kink at their common centre.
                    let kink = toy == Toy::Rings && x[0].hypot(x[1]) < 0.05;
                    assert!(kink || error < 0.05 + 2e-3 * slope.abs(), "{toy:?} {x:?}: {slope} {score:?}");
                }
            }
        }
    }

    #[test]
    fn densities_are_finite_far_out_and_at_the_centres() {
        for toy in Toy::ALL {
            for x in [[0.0, 0.0], [-0.6, -0.3], [60.0, -60.0], [-1e4, 3.0]] {
                let (value, score) = toy.log_density_and_score(x);
                assert!(value.is_finite() && score.iter().all(|s| s.is_finite()), "{toy:?} {x:?} {value} {score:?}");
            }
        }
    }

    /// The checkerboard's closed form against its construction: a uniform point of a dark cell plus logistic noise.
    #[test]
    fn the_checkerboard_is_a_blurred_board() {
        let mut noise = Noise::new(2, 0);
        let (n, side) = (400_000, 28);
        let bin = |x: f32| (((x + 2.1) / 4.2 * side as f32) as usize).min(side - 1);
        let mut counts = vec![0.0_f64; side * side];
        for _ in 0..n {
            let (column, row) = (noise.below(4), noise.below(2));
            let cell = [column, 2 * row + column % 2];
            let [x, y] = cell.map(|c| {
                let u = noise.uniform();
                (c as f32 - 2.0 + noise.uniform()) * CELL + CELL_EDGE * (u / (1.0 - u)).ln()
            });
            counts[bin(x) * side + bin(y)] += 1.0 / f64::from(n);
        }
        let mut masses = vec![0.0; side * side];
        let grid = Grid::new(Toy::Checkerboard);
        let mut before = 0.0;
        for (i, c) in grid.cumulative.iter().enumerate() {
            let [x, y] = Grid::centre(i);
            masses[bin(x) * side + bin(y)] += c - before;
            before = *c;
        }
        let distance: f64 = counts.iter().zip(&masses).map(|(a, b)| (a - b).abs()).sum();
        // 784 bins of about 500 counts: the counting error is sqrt(2 / (pi 500)) = 3.6 % of the mass; the grid's own
        // cells, a tenth of a bin, straddle the bins' edges and add about as much.
        assert!(distance < 0.08, "{distance}");
    }

    #[test]
    fn the_grid_samples_its_density() {
        for toy in Toy::ALL {
            let grid = Grid::new(toy);
            let masses = grid.masses();
            let inside: f64 = masses.iter().sum();
            // Three standard deviations: 99.73 % across a curve, 98.9 % of a Gaussian's disc; a cell loses a blur of
            // 0.05 / 0.875 twice a component.
            assert!(inside > if toy == Toy::Checkerboard { 0.8 } else { 0.98 }, "{toy:?} {inside}");
            let even = inside / toy.modes() as f64;
            assert!(masses.iter().all(|m| *m > 0.3 * even), "{toy:?} {masses:?}");
            let n = 20_000;
            let mut noise = Noise::new(3, 0);
            for (name, sample) in
                [("drawn", grid.sample(n, &mut noise)), ("stratified", grid.stratified(n, &mut noise))]
            {
                let mut shares = vec![0.0; toy.modes()];
                let (mut mean, mut square) = ([0.0; 2], [0.0; 2]);
                for x in sample.chunks_exact(2) {
                    if let Some(mode) = toy.mode([x[0], x[1]]) {
                        shares[mode] += 1.0 / n as f64;
                    }
                    for j in 0..2 {
                        mean[j] += f64::from(x[j]) / n as f64;
                        square[j] += f64::from(x[j]).powi(2) / n as f64;
                    }
                }
                for (share, mass) in shares.iter().zip(&masses) {
                    // Five standard errors of a share.
                    assert!(
                        (share - mass).abs() < 5.0 * (mass / n as f64).sqrt() + 1e-3,
                        "{toy:?} {name} {share} {mass}"
                    );
                }
                // Every toy is symmetric about the origin, with a standard deviation between 0.5 and 1.15.
                assert!(mean.iter().all(|m| m.abs() < 5.0 / (n as f64).sqrt()), "{toy:?} {name} {mean:?}");
                assert!(square.iter().all(|s| (0.25..1.3).contains(s)), "{toy:?} {square:?}");
            }
        }
    }

    #[test]
    fn names_are_read_back_and_others_refused_with_the_list() {
        for toy in Toy::ALL {
            assert_eq!(Toy::from_name(toy.name()), Ok(toy));
        }
        let refusal = Toy::from_name("moons").unwrap_err();
        assert_eq!(refusal.exit_code(), 2);
        assert!(Toy::ALL.iter().all(|toy| refusal.to_string().contains(toy.name())), "{refusal}");
    }
}
