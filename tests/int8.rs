//! The int8 network from outside: against a reference written from docs/format.md, against the f32 network it was made
//! from within a bound that is derived, and with words that somebody has damaged.

use flowlet::flow::{Plan, Sampler, Solver};
use flowlet::math;
use flowlet::net::{
    Activation, Calibration, LANES, QuantiseError, QuantisedNet, ShapeError, Trunk, VelocityNet, VelocityShape,
    quantise,
};
use flowlet::policy::PolicyScratch;
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro128PlusPlus;

const OMEGA: [f32; 3] = [1.0, 2.5, 7.0];

struct Uniform(Xoshiro128PlusPlus);

impl Uniform {
    fn new(seed: u64) -> Self {
        Self(Xoshiro128PlusPlus::seed_from_u64(seed))
    }

    fn floats(&mut self, n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|_| scale * math::symmetric_uniform(self.0.next_u32())).collect()
    }

    fn below(&mut self, n: u32) -> usize {
        (self.0.next_u32() % n) as usize
    }

    /// Any shape within these sizes.
    fn shape(&mut self) -> VelocityShape {
        // Now and then more inputs than one slice holds.
        let (observations, actions) = match self.below(6) {
            0 => (200, 5),
            1 => (9, 90),
            _ => (9, 5),
        };
        VelocityShape {
            obs: 1 + self.below(observations),
            act: 1 + self.below(actions),
            hidden: 4 + self.below(40),
            layers: 1 + self.below(4),
            frequencies: if self.below(3) == 0 { 0 } else { OMEGA.len() },
            activation: Activation::from_code(self.below(7) as u32).unwrap(),
            trunk: if self.below(2) == 0 { Trunk::Plain } else { Trunk::Residual },
        }
    }
}

/// Scratch of an evaluation: state, time, base, a, b.
fn evaluate(net: &QuantisedNet<'_>, s: &[f32], x: &[f32], t: f32) -> Vec<f32> {
    let h = net.shape().hidden;
    let [mut state, mut time, mut base, mut a, mut b] = [(); 5].map(|()| vec![0.0; h]);
    let mut v = vec![0.0; net.shape().act];
    net.state_part(s, &mut state);
    net.time_part(t, &mut time);
    net.join(&state, &time, &mut base);
    net.velocity(&base, x, &mut a, &mut b, &mut v);
    v
}

/// The network as the page of the format describes it, in wide integers.
mod page {
    use super::*;

    struct Words<'a>(&'a [u32]);

    impl Words<'_> {
        fn take(&mut self, n: usize) -> Vec<u32> {
            let (head, tail) = self.0.split_at(n);
            self.0 = tail;
            head.to_vec()
        }

        fn integers(&mut self, n: usize) -> Vec<i64> {
            self.take(n).into_iter().map(|w| i64::from(w as i32)).collect()
        }

        /// `m[i][j]`, the weight from input j to output i.
        fn matrix(&mut self, rows: usize, columns: usize) -> Vec<Vec<i64>> {
            let across = columns.div_ceil(8);
            let bytes: Vec<u8> =
                self.take(8 * rows.div_ceil(4) * across).into_iter().flat_map(u32::to_le_bytes).collect();
            let at = |i: usize, j: usize| i64::from(bytes[32 * (i / 4 * across + j / 8) + 8 * (i % 4) + j % 8] as i8);
            (0..rows).map(|i| (0..columns).map(|j| at(i, j)).collect()).collect()
        }

        /// An input matrix: one matrix after another for 64 inputs each.
        fn inputs(&mut self, rows: usize, columns: usize) -> Vec<Vec<i64>> {
            let mut all = vec![Vec::new(); rows];
            let mut left = columns;
            while left > 0 {
                let n = left.min(64);
                self.matrix(rows, n).into_iter().zip(&mut all).for_each(|(row, all)| all.extend(row));
                left -= n;
            }
            all
        }
    }

    fn dot(rows: &[Vec<i64>], x: &[i64], start: &[i64]) -> Vec<i64> {
        rows.iter().zip(start).map(|(row, b)| b + row.iter().zip(x).map(|(w, x)| w * x).sum::<i64>()).collect()
    }

    fn hidden(words: &mut Words<'_>, shape: &VelocityShape, multipliers: &[i64], sums: &[i64]) -> Vec<i64> {
        let table: Vec<i64> = if shape.activation == Activation::Relu {
            Vec::new()
        } else {
            words
                .take(129)
                .into_iter()
                .flat_map(|w| [w as u16, (w >> 16) as u16])
                .map(|y| i64::from(y as i16))
                .collect()
        };
        (sums.iter().zip(multipliers))
            .map(|(sum, m)| {
                assert!(i32::try_from(*sum).is_ok(), "a sum overflows");
                let q = (sum * m + (1 << 31)).div_euclid(1 << 32);
                if table.is_empty() {
                    return q.clamp(0, 8191);
                }
                let place = q.clamp(-8192, 8191) + 8192;
                let (k, r) = ((place / 64) as usize, place % 64);
                table[k] + ((table[k + 1] - table[k]) * r + 32).div_euclid(64)
            })
            .collect()
    }

    pub fn velocity(net: &QuantisedNet<'_>, s: &[f32], x: &[f32], t: f32) -> Vec<f32> {
        let shape = *net.shape();
        let (h, mut words) = (shape.hidden, Words(net.words()));
        let gain = f32::from_bits(words.take(1)[0]);
        let q = |x: f32| (f64::from((x * gain).clamp(-8191.0, 8191.0)).round_ties_even()) as i64;
        let integers = |x: &[f32]| -> Vec<i64> { x.iter().map(|x| q(*x)).collect() };
        let features: Vec<f32> = (OMEGA[..shape.frequencies].iter().map(|f| math::sin_cos(f * t).0))
            .chain(OMEGA[..shape.frequencies].iter().map(|f| math::sin_cos(f * t).1))
            .collect();
        let (state, latent, time) =
            (words.inputs(h, shape.obs), words.inputs(h, shape.act), words.inputs(h, 2 * shape.frequencies));
        let (bias, multipliers) = (words.integers(h), words.integers(h));
        let mut sums = dot(&state, &integers(s), &bias);
        sums = dot(&time, &integers(&features), &sums);
        sums = dot(&latent, &integers(x), &sums);
        let mut y = hidden(&mut words, &shape, &multipliers, &sums);
        for _ in 1..shape.layers {
            let matrix = words.matrix(h, h);
            let (bias, multipliers) = (words.integers(h), words.integers(h));
            let sums = dot(&matrix, &y, &bias);
            let next = hidden(&mut words, &shape, &multipliers, &sums);
            y = match shape.trunk {
                Trunk::Plain => next,
                Trunk::Residual => next.iter().zip(&y).map(|(a, b)| (a + b).clamp(-8192, 8191)).collect(),
            };
        }
        let matrix = words.matrix(shape.act, h);
        let bias = words.integers(shape.act);
        let sums = dot(&matrix, &y, &bias);
        words.take(shape.act).into_iter().zip(sums).map(|(gain, sum)| sum as f32 * f32::from_bits(gain)).collect()
    }
}

#[test]
fn every_network_computes_what_the_page_says() {
    let mut u = Uniform::new(5);
    for round in 0..if cfg!(miri) { 4 } else { 300 } {
        let shape = u.shape();
        let params = u.floats(shape.params(), 0.5);
        let (sums, outputs) = (vec![3.0; shape.layers], vec![2.0; shape.layers]);
        let mut words = vec![0; QuantisedNet::words_of(&shape)];
        quantise(&shape, &params, &Calibration { input: 5.0, sums: &sums, outputs: &outputs }, &mut words).unwrap();
        let net = QuantisedNet::new(shape, &OMEGA[..shape.frequencies], &words).unwrap();
        for scale in [0.5, 2.0, 1e3, 1e38] {
            let (s, x) = (u.floats(shape.obs, scale), u.floats(shape.act, scale));
            let t = 0.1 * round as f32;
            let (found, expected) = (evaluate(&net, &s, &x, t), page::velocity(&net, &s, &x, t));
            let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&found), bits(&expected), "{shape:?} {found:?} {expected:?}");
        }
    }
}

/// The best of several takes latents in groups; in int8 as in single precision each has the bits of its own integration.
#[test]
fn groups_of_latents_have_the_bits_of_single_ones() {
    let mut u = Uniform::new(8);
    for _ in 0..if cfg!(miri) { 2 } else { 40 } {
        let shape = u.shape();
        let params = u.floats(shape.params(), 0.5);
        let (sums, outputs) = (vec![3.0; shape.layers], vec![2.0; shape.layers]);
        let mut words = vec![0; QuantisedNet::words_of(&shape)];
        quantise(&shape, &params, &Calibration { input: 5.0, sums: &sums, outputs: &outputs }, &mut words).unwrap();
        let net = QuantisedNet::new(shape, &OMEGA[..shape.frequencies], &words).unwrap().into();
        let plan = Plan { solver: Solver::Heun, steps: 2, t_start: 0.0, t_end: 1.0, latent_clip: 6.0 };
        let sampler = Sampler::new(&net, plan).unwrap();
        let mut memory = vec![0.0; PolicyScratch::len(&shape, &plan)];
        let mut scratch = PolicyScratch::carve(&shape, &plan, &mut memory).unwrap().sampler;
        sampler.prepare(&mut scratch).unwrap();
        sampler.observe(&u.floats(shape.obs, 2.0), &mut scratch).unwrap();
        let all: Vec<Vec<f32>> = (0..LANES).map(|_| u.floats(shape.act, 1.0)).collect();
        let mut group: Vec<[f32; LANES]> = (0..shape.act).map(|j| std::array::from_fn(|p| all[p][j])).collect();
        let (mut a, mut b) = (vec![[0.0; LANES]; shape.hidden], vec![[0.0; LANES]; shape.hidden]);
        let mut slopes = vec![[0.0; LANES]; 3 * shape.act];
        sampler.integrate_batch(&mut group, &mut scratch, [&mut a, &mut b], &mut slopes).unwrap();
        for (p, mut one) in all.into_iter().enumerate() {
            sampler.integrate(&mut one, &mut scratch).unwrap();
            assert!(one.iter().zip(&group).all(|(x, row)| x.to_bits() == row[p].to_bits()), "{shape:?}");
        }
    }
}

#[test]
fn words_of_any_kind_are_refused_or_harmless() {
    // Whatever is accepted computes what the page says in integers without end, so nothing has overflowed.
    let mut u = Uniform::new(6);
    let mut accepted = 0;
    for _ in 0..if cfg!(miri) { 20 } else { 3000 } {
        let shape = VelocityShape { hidden: 4 + 4 * u.below(3), ..u.shape() };
        let params = u.floats(shape.params(), 0.5);
        let ones = vec![1.0; shape.layers];
        let mut words = vec![0; QuantisedNet::words_of(&shape)];
        quantise(&shape, &params, &Calibration { input: 1.0, sums: &ones, outputs: &ones }, &mut words).unwrap();
        for _ in 0..1 + u.below(3) {
            let place = u.below(words.len() as u32);
            words[place] = if u.below(2) == 0 { u.0.next_u32() } else { words[place] ^ 1 << u.below(32) };
        }
        let Ok(net) = QuantisedNet::new(shape, &OMEGA[..shape.frequencies], &words) else { continue };
        accepted += 1;
        let (s, x) = (u.floats(shape.obs, 3.0), u.floats(shape.act, 3.0));
        let (found, expected) = (evaluate(&net, &s, &x, 0.5), page::velocity(&net, &s, &x, 0.5));
        assert!(found.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits() && a.is_finite()));
    }
    assert!(accepted > 3, "{accepted}");
}

#[test]
fn the_greatest_sum_that_is_allowed_fits_in_32_bits() {
    // All of the 1792 inputs at their bound, all weights and biases at theirs: the worst that a checked network can hold.
    let shape = VelocityShape {
        obs: 1024,
        act: 256,
        hidden: 4,
        layers: 1,
        frequencies: 256,
        activation: Activation::Relu,
        trunk: Trunk::Plain,
    };
    let frequencies = vec![0.0; 256];
    let mut words = vec![0u32; QuantisedNet::words_of(&shape)];
    let inputs = 1 + 8 * (1024 / 8 + 256 / 8 + 512 / 8);
    words[0] = 8191f32.to_bits();
    words[1..inputs].fill(u32::from_le_bytes([127; 4]));
    words[inputs..inputs + 4].fill(1 << 28);
    words[inputs + 4..inputs + 8].fill(1 << 20);
    let net = QuantisedNet::new(shape, &frequencies, &words).unwrap();
    let (mut state, mut time, mut base) = ([0.0; 4], [0.0; 4], [0.0; 4]);
    net.state_part(&[1.0; 1024], &mut state);
    net.time_part(0.0, &mut time); // all cosines are one, all sines zero
    net.join(&state, &time, &mut base);
    let latents = 127 * 8192 * 256;
    assert_eq!(base[0].to_bits(), (1 << 28) + 127 * 8191 * (1024 + 256));
    assert!(i64::from(base[0].to_bits()) + i64::from(latents) + 127 * 8192 * 256 < 1 << 31);
    // One step beyond is refused.
    for (place, value) in [(inputs, (1 << 28) + 1), (inputs, (-(1i32 << 28) - 1) as u32), (1, 0x80)] {
        let mut bad = words.clone();
        bad[place] = value;
        assert!(matches!(QuantisedNet::new(shape, &frequencies, &bad), Err(ShapeError::Value(_))), "{place}");
    }
}

#[test]
fn each_part_is_checked_by_name() {
    let shape = VelocityShape {
        obs: 3,
        act: 2,
        hidden: 6,
        layers: 2,
        frequencies: 3,
        activation: Activation::Tanh,
        trunk: Trunk::Plain,
    };
    let params = Uniform::new(7).floats(shape.params(), 0.5);
    let ones = [1.0; 2];
    let calibration = Calibration { input: 1.0, sums: &ones, outputs: &ones };
    let mut words = vec![0; QuantisedNet::words_of(&shape)];
    quantise(&shape, &params, &calibration, &mut words).unwrap();
    QuantisedNet::new(shape, &OMEGA, &words).unwrap();
    let first = 1 + 3 * 16;
    let second = first + 12 + 129;
    let out = second + 16 + 12 + 129;
    assert_eq!(words.len(), out + 8 + 4);
    for (place, value, error) in [
        (0, 0f32.to_bits(), "input gain"),
        (0, f32::NAN.to_bits(), "input gain"),
        (0, f32::INFINITY.to_bits(), "input gain"),
        (1, 0x8000, "int8 weights"),      // -128
        (1, 0x0100_0000, "int8 weights"), // a fourth column of three
        (1 + 15, 1, "int8 weights"),      // an eighth row of six
        (first, 0x2000_0000, "int8 biases"),
        (first + 6, 0x8000_0000, "int8 multipliers"),
        (first + 12, 8192, "int8 activation tables"),
        (first + 12 + 128, 0x0001_0000, "int8 activation tables"), // behind the last knot
        (second, 0x8080_8080, "int8 weights"),
        (out + 8, 0x7fff_ffff, "int8 biases"),
        (out + 10, f32::NAN.to_bits(), "output gains"),
        (out + 11, (-1f32).to_bits(), "output gains"),
        (out + 11, 1e-30f32.to_bits(), "output gains"),
    ] {
        let mut bad = words.clone();
        bad[place] = value;
        assert_eq!(QuantisedNet::new(shape, &OMEGA, &bad).unwrap_err(), ShapeError::Value(error), "word {place}");
    }
    let short = QuantisedNet::new(shape, &OMEGA, &words[1..]).unwrap_err();
    assert_eq!(short, ShapeError::Parameters { expected: words.len(), found: words.len() - 1 });
    assert_eq!(QuantisedNet::new(shape, &OMEGA[1..], &words).unwrap_err(), ShapeError::Frequencies);
    assert_eq!(
        QuantisedNet::new(VelocityShape { hidden: 3, ..shape }, &OMEGA, &words).unwrap_err(),
        ShapeError::Narrow
    );
    assert_eq!(QuantisedNet::new(VelocityShape { obs: 0, ..shape }, &OMEGA, &words).unwrap_err(), ShapeError::Empty);
    // More inputs than the greatest sum has room for, which no artefact has.
    for wide in [VelocityShape { obs: 1785, ..shape }, VelocityShape { hidden: 1793, ..shape }] {
        let words = vec![0; QuantisedNet::words_of(&wide)];
        assert_eq!(QuantisedNet::new(wide, &OMEGA, &words).unwrap_err(), ShapeError::Wide);
    }
    let narrow = VelocityShape { hidden: 3, ..shape };
    let params = vec![0.0; narrow.params()];
    let refused = quantise(&narrow, &params, &calibration, &mut vec![0; QuantisedNet::words_of(&narrow)]);
    assert_eq!(refused, Err(QuantiseError::Narrow));
    let params = Uniform::new(7).floats(shape.params(), 0.5);
    let refusal = |params: &[f32], calibration: &Calibration<'_>| {
        quantise(&shape, params, calibration, &mut vec![0; QuantisedNet::words_of(&shape)]).unwrap_err()
    };
    assert!(matches!(refusal(&params[1..], &calibration), QuantiseError::Length(_)));
    assert!(matches!(refusal(&params, &Calibration { sums: &ones[1..], ..calibration }), QuantiseError::Length(_)));
    for input in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e30] {
        assert_eq!(refusal(&params, &Calibration { input, ..calibration }), QuantiseError::Calibration);
    }
    let mut bad = params.clone();
    bad[5] = f32::NAN;
    assert_eq!(refusal(&bad, &calibration), QuantiseError::Weight);
    let huge = VelocityShape { obs: usize::MAX, hidden: usize::MAX, layers: usize::MAX, ..shape };
    assert_eq!(QuantisedNet::words_of(&huge), usize::MAX);
}

/// Values of a layer with a bound on their error.
#[derive(Clone, Default)]
struct Bounded {
    value: Vec<f64>,
    error: Vec<f64>,
}

/// What int8 may be off by: the f32 network in f64, and beside each value the bound that follows from the roundings.
///
/// With `u` the unit of the inputs and `w` that of a row's weights: an input is off by `u / 2` (or by what the layer before
/// says), a weight by `w / 2`, the bias by `u w / 2`. The sum's multiplier is rounded to 2^-32, its result to half a unit.
/// Every activation but ReLU is read from a table with knots 64 units `s` apart: a line between knots is off by
/// `(64 s)^2 / 8 max |f''|`, and the knots and the result by half a unit each. Nothing is clipped, as the test sees to.
mod bound {
    use super::*;

    pub const UNITS: f64 = 8191.0;

    /// Largest |f'| and |f''| of tanh, SiLU and GELU, rounded up from their known extremes.
    fn slopes(activation: Activation) -> (f64, f64) {
        match activation {
            Activation::Relu => (1.0, 0.0),
            _ if activation.name().starts_with("tanh") => (1.0, 0.77),
            _ if activation.name().starts_with("silu") => (1.1, 0.5),
            _ => (1.13, 0.8),
        }
    }

    pub struct Layer<'p> {
        pub w: &'p [f32],
        pub bias: &'p [f32],
    }

    impl Layer<'_> {
        /// The sums of a layer, and the unit of each row's weights.
        pub fn sums(&self, x: &Bounded, unit: f64) -> (Bounded, Vec<f64>) {
            let rows = self.bias.len();
            let mut sums = Bounded::default();
            let mut units = Vec::new();
            for (i, bias) in self.bias.iter().enumerate() {
                let row: Vec<f64> = (0..x.value.len()).map(|j| f64::from(self.w[j * rows + i])).collect();
                let largest = row.iter().fold(0.0, |most: f64, w| most.max(w.abs()));
                let w_unit = (largest / 127.0).max(f64::from(bias.abs()) / (unit * (1u32 << 28) as f64));
                let mut error = 0.5 * unit * w_unit;
                let mut value = f64::from(*bias);
                for ((w, x), e) in row.iter().zip(&x.value).zip(&x.error) {
                    value += w * x;
                    error += (w.abs() + 0.5 * w_unit) * e + 0.5 * w_unit * x.abs();
                }
                sums.value.push(value);
                sums.error.push(error);
                units.push(w_unit * unit);
            }
            (sums, units)
        }
    }

    /// The outputs of a hidden layer from its sums, with the units of the table's argument and of the outputs.
    pub fn outputs(activation: Activation, sums: &Bounded, [argument, output]: [f64; 2], units: &[f64]) -> Bounded {
        let (slope, bend) = slopes(activation);
        let mut y = Bounded::default();
        for ((z, e), unit) in sums.value.iter().zip(&sums.error).zip(units) {
            let count = (z.abs() + e) / unit;
            let e = e + argument * (0.5 + count * 0.5 / 4_294_967_296.0);
            let line = (64.0 * argument).powi(2) / 8.0 * bend;
            let table = if activation == Activation::Relu { 0.0 } else { line + output };
            y.value.push(f64::from(activation.value(*z as f32)));
            // 2^-20 for the f32 activation of the reference.
            y.error.push(slope * e + table + 1e-6 * (1.0 + z.abs()));
        }
        y
    }
}

#[test]
fn int8_differs_from_f32_by_no_more_than_its_roundings() {
    let mut u = Uniform::new(9);
    let mut ratios: Vec<f64> = Vec::new();
    for _ in 0..if cfg!(miri) { 3 } else { 120 } {
        let shape = VelocityShape { act: 1 + u.below(3), obs: 1 + u.below(9), ..u.shape() };
        let (h, columns) = (shape.hidden, shape.obs + shape.act + 2 * shape.frequencies);
        let params = u.floats(shape.params(), (3.0 / h as f32).sqrt());
        let (s, x, t) = (u.floats(shape.obs, 2.0), u.floats(shape.act, 2.0), 0.3);
        let omega = &OMEGA[..shape.frequencies];
        let features =
            omega.iter().map(|f| libm::sin(f64::from(f * t))).chain(omega.iter().map(|f| libm::cos(f64::from(f * t))));
        let value: Vec<f64> = s.iter().chain(&x).map(|x| f64::from(*x)).chain(features).collect();
        let unit = 2.0 / bound::UNITS;
        let input = Bounded { error: vec![0.5 * unit + 1e-6; value.len()], value };
        // Layers one by one, each calibrated at what it computes and its error, so that nothing is clipped.
        let (mut rest, mut y, mut unit) = (params.as_slice(), input, unit);
        let (mut sums_most, mut outputs_most) = (Vec::new(), Vec::new());
        let mut take = |n: usize| {
            let (head, tail) = rest.split_at(n);
            rest = tail;
            head
        };
        let magnitude = |b: &Bounded| b.value.iter().zip(&b.error).fold(0.0, |most: f64, (v, e)| most.max(v.abs() + e));
        // One generous scale for the outputs of all layers serves both trunks.
        let joined = 16.0 * (1 + shape.layers) as f64;
        for layer in 0..shape.layers {
            let columns = if layer == 0 { columns } else { h };
            let dense = bound::Layer { w: take(columns * h), bias: take(h) };
            let (sums, units) = dense.sums(&y, unit);
            let largest = units.iter().fold(0.0, |most: f64, u| most.max(*u));
            let most = magnitude(&sums) as f32 * 1.001;
            let output = joined / bound::UNITS;
            let relu = shape.activation == Activation::Relu;
            let argument = if relu { output } else { (f64::from(most) / bound::UNITS).max(2.1 * largest) };
            let next = bound::outputs(shape.activation, &sums, [argument, output], &units);
            y = if layer > 0 && shape.trunk == Trunk::Residual {
                let add = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a + b).collect();
                Bounded { value: add(&next.value, &y.value), error: add(&next.error, &y.error) }
            } else {
                next
            };
            assert!(magnitude(&y) < joined, "{shape:?}");
            sums_most.push(most);
            outputs_most.push(joined as f32);
            unit = output;
        }
        let out = bound::Layer { w: take(h * shape.act), bias: take(shape.act) };
        let (exact, _) = out.sums(&y, unit);
        let calibration = Calibration { input: 2.0, sums: &sums_most, outputs: &outputs_most };
        let mut words = vec![0; QuantisedNet::words_of(&shape)];
        quantise(&shape, &params, &calibration, &mut words).unwrap();
        let v = evaluate(&QuantisedNet::new(shape, omega, &words).unwrap(), &s, &x, t);
        for ((v, exact), bound) in v.iter().zip(&exact.value).zip(&exact.error) {
            let ratio = (f64::from(*v) - exact).abs() / bound;
            assert!(ratio <= 1.0, "{shape:?}: {v} {exact} {bound}");
            ratios.push(ratio);
        }
        // And the f32 network is the one that the reference computes.
        let net = VelocityNet::new(shape, omega, &params).unwrap();
        let [mut state, mut time, mut base, mut a, mut b] = [(); 5].map(|()| vec![0.0; h]);
        let mut single = vec![0.0; shape.act];
        net.state_part(&s, &mut state);
        net.time_part(t, &mut time);
        net.join(&state, &time, &mut base);
        net.velocity(&base, &x, &mut a, &mut b, &mut single);
        for (single, exact) in single.iter().zip(&exact.value) {
            assert!((f64::from(*single) - exact).abs() < 1e-4 * (1.0 + exact.abs()), "{shape:?}");
        }
    }
    // A bound that nothing comes near to would not test anything.
    let largest = ratios.iter().fold(0.0, |most: f64, r| most.max(*r));
    assert!(cfg!(miri) || largest > 0.05, "{largest}");
}
