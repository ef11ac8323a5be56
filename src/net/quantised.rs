//! The velocity network in int8: 8-bit weights, 16-bit activations, 32-bit sums.
//!
//! The same network as [`VelocityNet`](super::VelocityNet), first layer split in the same way; `docs/format.md` fixes its
//! arithmetic and the layout of its words. Inputs are rounded to integers of a common scale; state part, time part, latent part
//! and bias share one 32-bit sum a row; a multiplier of the row brings the sum to the layer's scale; only the outputs become
//! floats again. So an evaluation takes no floating point but for its inputs and outputs, and its bits are equal everywhere by
//! exactness, not by order. No sum can overflow: 1792 inputs of 8192 times 127 and a bias of 2^28 stay below 2^31, and
//! [`QuantisedNet::new`] has checked every byte. A view, no panics, no allocation.
//!
//! Scratch is lent as words, in slices of `f32` as for the other formats; here they hold `i32` sums and `i16` activations.

use super::kernel::int8::{
    ACTIVATION_MAX, COLUMNS, Group, Tile, dense, dense_relu, pack, place, requantise, tiles, unpack,
};
use super::velocity::TimeFeatures;
use super::{Activation, ShapeError, Trunk, VelocityShape};
use crate::math;
use zerocopy::{FromBytes, IntoBytes, transmute_ref};

/// Largest magnitude of a weight; -128 is refused, so that the weights are symmetric.
pub(super) const WEIGHT_MAX: i8 = 127;
/// Largest magnitude of a bias.
pub(super) const BIAS_MAX: i32 = 1 << 28;
/// Smallest hidden width: a buffer of `H` words then holds `H` activations in groups of eight.
pub(super) const HIDDEN_MIN: usize = 4;
/// Most inputs of a layer, by which no sum overflows: the first layer's at the largest sizes that an artefact has.
const INPUTS_MAX: usize = 1024 + 256 + 2 * 256;
const _: () = assert!(INPUTS_MAX as i64 * 8192 * WEIGHT_MAX as i64 + (BIAS_MAX as i64) < 1 << 31);
/// Inputs of the first layer that are quantised at once, on the stack.
pub(super) const SLICE: usize = 64;
/// Intervals of an activation table, each of `2^KNOT_BITS` units, and the entries with the padding to a word.
pub(super) const KNOTS: usize = 256;
pub(super) const KNOT_BITS: u32 = 6;
const TABLE: usize = KNOTS + 2;

/// A velocity network in int8 over words that live elsewhere.
#[derive(Debug, Clone, Copy)]
pub struct QuantisedNet<'a> {
    shape: VelocityShape,
    frequencies: &'a [f32],
    words: &'a [u32],
    /// Integers per unit of an input.
    gain: f32,
    state: &'a [Tile],
    latent: &'a [Tile],
    time: &'a [Tile],
    first: Layer<'a>,
    trunk: &'a [u32],
    out: &'a [Tile],
    out_bias: &'a [i32],
    /// Velocity per unit of an output's sum.
    out_gains: &'a [f32],
}

/// What follows the matrix of a hidden layer.
#[derive(Debug, Clone, Copy)]
struct Layer<'a> {
    bias: &'a [i32],
    /// 2^32 times the layer's integers per unit of the sum.
    multipliers: &'a [i32],
    /// The activation at the knots; none for ReLU.
    table: Option<&'a [i16; TABLE]>,
}

/// Words of a hidden layer's bias, multipliers and table.
pub(super) const fn layer_words(shape: &VelocityShape) -> usize {
    let table = if matches!(shape.activation, Activation::Relu) { 0 } else { TABLE / 2 };
    shape.hidden.saturating_mul(2).saturating_add(table)
}

/// Words of a matrix.
pub(super) const fn matrix_words(rows: usize, columns: usize) -> usize {
    tiles(rows, columns).saturating_mul(8)
}

/// Takes words off the front of a slice.
struct Reader<'a>(&'a [u32]);

impl<'a> Reader<'a> {
    fn words(&mut self, n: usize) -> &'a [u32] {
        match self.0.split_at_checked(n) {
            Some((head, tail)) => {
                self.0 = tail;
                head
            }
            None => &[],
        }
    }

    fn matrix(&mut self, rows: usize, columns: usize) -> &'a [Tile] {
        self.words(matrix_words(rows, columns)).as_chunks().0
    }

    fn integers(&mut self, n: usize) -> &'a [i32] {
        transmute_ref!(self.words(n))
    }

    fn floats(&mut self, n: usize) -> &'a [f32] {
        transmute_ref!(self.words(n))
    }

    fn layer(&mut self, shape: &VelocityShape) -> Layer<'a> {
        let (bias, multipliers) = (self.integers(shape.hidden), self.integers(shape.hidden));
        let table = match shape.activation {
            Activation::Relu => None,
            _ => self.words(TABLE / 2).first_chunk::<{ TABLE / 2 }>().map(|words| transmute_ref!(words)),
        };
        Layer { bias, multipliers, table }
    }
}

impl<'a> QuantisedNet<'a> {
    /// Words of a network of this shape; `usize::MAX` where they cannot be counted.
    pub const fn words_of(shape: &VelocityShape) -> usize {
        let h = shape.hidden;
        let inputs = matrix_words(h, shape.obs)
            .saturating_add(matrix_words(h, shape.act))
            .saturating_add(matrix_words(h, shape.frequencies.saturating_mul(2)));
        let further = matrix_words(h, h).saturating_add(layer_words(shape));
        let further = further.saturating_mul(shape.layers.saturating_sub(1));
        let out = matrix_words(shape.act, h).saturating_add(shape.act.saturating_mul(2));
        inputs.saturating_add(1).saturating_add(layer_words(shape)).saturating_add(further).saturating_add(out)
    }

    /// A view over `words`, laid out as `docs/format.md` says; every one of them is checked.
    pub fn new(shape: VelocityShape, frequencies: &'a [f32], words: &'a [u32]) -> Result<Self, ShapeError> {
        if shape.is_empty() {
            return Err(ShapeError::Empty);
        }
        if shape.hidden < HIDDEN_MIN {
            return Err(ShapeError::Narrow);
        }
        let inputs = shape.obs.saturating_add(shape.act).saturating_add(shape.frequencies.saturating_mul(2));
        if inputs.max(shape.hidden) > INPUTS_MAX {
            return Err(ShapeError::Wide);
        }
        if frequencies.len() != shape.frequencies {
            return Err(ShapeError::Frequencies);
        }
        if words.len() != Self::words_of(&shape) {
            return Err(ShapeError::Parameters { expected: Self::words_of(&shape), found: words.len() });
        }
        let (h, mut r) = (shape.hidden, Reader(words));
        let gain = r.floats(1).first().copied().unwrap_or(0.0);
        let net = Self {
            shape,
            frequencies,
            words,
            gain,
            state: r.matrix(h, shape.obs),
            latent: r.matrix(h, shape.act),
            time: r.matrix(h, 2 * shape.frequencies),
            first: r.layer(&shape),
            trunk: r.words((shape.layers - 1).saturating_mul(matrix_words(h, h) + layer_words(&shape))),
            out: r.matrix(shape.act, h),
            out_bias: r.integers(shape.act),
            out_gains: r.floats(shape.act),
        };
        net.check()?;
        Ok(net)
    }

    fn check(&self) -> Result<(), ShapeError> {
        let (s, h) = (&self.shape, self.shape.hidden);
        if !(math::FLUSH..=1.0 / math::FLUSH).contains(&self.gain) {
            return Err(ShapeError::Value("input gain"));
        }
        // An input matrix is a row of matrices of up to `SLICE` columns.
        for (matrix, columns) in [(self.state, s.obs), (self.latent, s.act), (self.time, 2 * s.frequencies)] {
            let mut rest = matrix;
            for start in (0..columns).step_by(SLICE) {
                let columns = (columns - start).min(SLICE);
                let (slice, tail) = rest.split_at_checked(tiles(h, columns)).unwrap_or((rest, &[]));
                check_matrix(slice, h, columns)?;
                rest = tail;
            }
        }
        self.first.check()?;
        for (matrix, layer) in self.further() {
            check_matrix(matrix, h, h)?;
            layer.check()?;
        }
        check_matrix(self.out, s.act, h)?;
        check_biases(self.out_bias)?;
        if !self.out_gains.iter().all(|gain| *gain == 0.0 || (math::FLUSH..=1.0 / math::FLUSH).contains(gain)) {
            return Err(ShapeError::Value("output gains"));
        }
        Ok(())
    }

    /// Matrix and rest of each hidden layer after the first.
    fn further(&self) -> impl Iterator<Item = (&'a [Tile], Layer<'a>)> {
        let (shape, mut r) = (self.shape, Reader(self.trunk));
        (1..shape.layers).map(move |_| (r.matrix(shape.hidden, shape.hidden), r.layer(&shape)))
    }

    /// The shape the view was made with.
    pub fn shape(&self) -> &VelocityShape {
        &self.shape
    }

    /// The time frequencies, in radians per unit of flow time.
    pub fn frequencies(&self) -> &'a [f32] {
        self.frequencies
    }

    /// All words, in the order of the layout.
    pub fn words(&self) -> &'a [u32] {
        self.words
    }

    /// `out = W_s s + b` for a normalised observation `s`: `H` sums.
    pub fn state_part(&self, s: &[f32], out: &mut [f32]) {
        self.input_part(self.state, s.get(..self.shape.obs).unwrap_or(&[]), Some(self.first.bias), sums(out));
    }

    /// `out = W_t te(t)` for the flow time `t`: `H` sums.
    pub fn time_part(&self, t: f32, out: &mut [f32]) {
        let (out, n) = (sums(out), 2 * self.shape.frequencies);
        out.fill(0);
        let mut rest = self.time;
        for first in (0..n).step_by(SLICE) {
            let mut features = [0.0; SLICE];
            let features = features.get_mut(..(n - first).min(SLICE)).unwrap_or(&mut []);
            for (feature, j) in features.iter_mut().zip(first..) {
                *feature = TimeFeatures::Own.component(self.frequencies, t, j);
            }
            let (slice, tail) = rest.split_at_checked(tiles(self.shape.hidden, features.len())).unwrap_or((rest, &[]));
            self.input_part(slice, features, None, out);
            rest = tail;
        }
    }

    /// `base = state part + time part`.
    pub fn join(&self, state: &[f32], time: &[f32], base: &mut [f32]) {
        let (state, time): (&[i32], &[i32]) = (transmute_ref!(state), transmute_ref!(time));
        for ((base, state), time) in sums(base).iter_mut().zip(state).zip(time) {
            *base = state.wrapping_add(*time);
        }
    }

    /// `v = v(x, t, s)` from `base = state part + time part` and the latent `x`.
    ///
    /// `a` and `b` are scratch of `H` words.
    pub fn velocity(&self, base: &[f32], x: &[f32], a: &mut [f32], b: &mut [f32], v: &mut [f32]) {
        let base: &[i32] = transmute_ref!(base);
        let x = x.get(..self.shape.act).unwrap_or(&[]);
        let v = sums(v);
        match (self.first.table, self.shape.trunk) {
            (None, Trunk::Plain) => self.rectified(base, x, a, b, v),
            _ => self.general(base, x, a, b, v),
        }
        for (sum, gain) in v.iter_mut().zip(self.out_gains) {
            // The word becomes the float that the caller reads.
            *sum = (*sum as f32 * gain).to_bits() as i32;
        }
    }

    /// The sums of the outputs for ReLU and a plain trunk: layers go from `a` to `b` and back, and their sums nowhere.
    fn rectified(&self, base: &[i32], x: &[f32], a: &mut [f32], b: &mut [f32], v: &mut [i32]) {
        let h = self.shape.hidden;
        let (before, last) = x.split_at(x.len().saturating_sub(1) / SLICE * SLICE);
        let (before_matrix, last_matrix) =
            self.latent.split_at_checked(tiles(h, before.len())).unwrap_or((self.latent, &[]));
        self.input_part(before_matrix, before, Some(base), sums(a));
        let start = if before.is_empty() { base } else { sums(a) };
        let multipliers = self.first.multipliers;
        let mut memory = Slice::default();
        let last_groups = slice(last, self.gain, &mut memory);
        dense_relu(last_matrix, last_groups, last.len(), start, multipliers, groups(b, h));
        let (mut from, mut to) = (b, a);
        for (matrix, layer) in self.further() {
            dense_relu(matrix, groups(from, h), h, layer.bias, layer.multipliers, groups(to, h));
            core::mem::swap(&mut from, &mut to);
        }
        dense(self.out, groups(from, h), h, Some(self.out_bias), v);
    }

    /// The sums of the outputs for every network: sums in `a`, activations in `b`.
    fn general(&self, base: &[i32], x: &[f32], a: &mut [f32], b: &mut [f32], v: &mut [i32]) {
        let h = self.shape.hidden;
        let (a, hidden) = (sums(a), groups(b, h));
        self.input_part(self.latent, x, Some(base), a);
        self.first.activate(a, false, hidden);
        let residual = self.shape.trunk == Trunk::Residual;
        for (matrix, layer) in self.further() {
            dense(matrix, hidden, h, Some(layer.bias), a);
            layer.activate(a, residual, hidden);
        }
        dense(self.out, hidden, h, Some(self.out_bias), v);
    }

    /// `sums = start + W x` for an input matrix with as many columns as `x` has numbers, quantised slice by slice.
    fn input_part(&self, matrix: &[Tile], x: &[f32], start: Option<&[i32]>, sums: &mut [i32]) {
        let (mut rest, mut start) = (matrix, start);
        for x in x.chunks(SLICE) {
            let (head, tail) = rest.split_at_checked(tiles(self.shape.hidden, x.len())).unwrap_or((rest, &[]));
            let mut memory = Slice::default();
            dense(head, slice(x, self.gain, &mut memory), x.len(), start.take(), sums);
            rest = tail;
        }
    }
}

/// The groups of up to [`SLICE`] inputs.
type Slice = [Group; SLICE / COLUMNS];

/// Quantises up to [`SLICE`] inputs.
#[inline(always)]
fn slice<'s>(x: &[f32], gain: f32, groups: &'s mut Slice) -> &'s [Group] {
    let numbers: &mut [i16; SLICE] = zerocopy::transmute_mut!(groups);
    for (j, x) in x.iter().enumerate() {
        if let Some(number) = numbers.get_mut(place(j)) {
            *number = quantise(*x, gain);
        }
    }
    groups
}

/// Words of scratch as the groups of `h` activations.
#[inline]
fn groups(words: &mut [f32], h: usize) -> &mut [Group] {
    <[Group]>::mut_from_prefix_with_elems(words.as_mut_bytes(), h.div_ceil(COLUMNS))
        .map_or(&mut [], |(groups, _)| groups)
}

impl Layer<'_> {
    fn check(&self) -> Result<(), ShapeError> {
        check_biases(self.bias)?;
        if self.multipliers.iter().any(|m| *m < 0) {
            return Err(ShapeError::Value("int8 multipliers"));
        }
        let Some([knots @ .., padding]) = self.table else { return Ok(()) };
        let lawful = knots.iter().all(|y| hold((*y).into()) == (*y).into()) && *padding == 0;
        if lawful { Ok(()) } else { Err(ShapeError::Value("int8 activation tables")) }
    }

    /// Brings the sums to the layer's scale, applies the activation and puts it into `hidden`, or adds it there.
    #[inline]
    fn activate(&self, sums: &[i32], residual: bool, hidden: &mut [Group]) {
        match (self.table, residual) {
            (None, false) => self.each(sums, hidden, |q, _| q.clamp(0, ACTIVATION_MAX)),
            (None, true) => self.each(sums, hidden, |q, old| hold(q.clamp(0, ACTIVATION_MAX) + i32::from(old))),
            (Some(table), false) => self.each(sums, hidden, |q, _| look_up(table, q)),
            (Some(table), true) => self.each(sums, hidden, |q, old| hold(look_up(table, q) + i32::from(old))),
        }
    }

    /// `f` of each row's number in units and of what `hidden` had there.
    #[inline(always)]
    fn each(&self, sums: &[i32], hidden: &mut [Group], f: impl Fn(i32, i16) -> i32) {
        let scaled = |sums: &[i32; COLUMNS], multipliers: &[i32; COLUMNS], group: &mut Group| {
            let mut values = unpack(*group);
            for ((value, sum), multiplier) in values.iter_mut().zip(sums).zip(multipliers) {
                *value = f(requantise(*sum, *multiplier), *value) as i16;
            }
            *group = pack(values);
        };
        let (sums, last_sums) = sums.as_chunks();
        let (multipliers, last_multipliers) = self.multipliers.as_chunks();
        for ((group, sums), multipliers) in hidden.iter_mut().zip(sums).zip(multipliers) {
            scaled(sums, multipliers, group);
        }
        if let (Some(group), false) = (hidden.get_mut(sums.len()), last_sums.is_empty()) {
            let mut padded = [[0; COLUMNS]; 2];
            padded[0].iter_mut().zip(last_sums).for_each(|(to, from)| *to = *from);
            padded[1].iter_mut().zip(last_multipliers).for_each(|(to, from)| *to = *from);
            scaled(&padded[0], &padded[1], group);
        }
    }
}

/// A number held in the range of activations.
#[inline(always)]
fn hold(q: i32) -> i32 {
    q.clamp(-ACTIVATION_MAX - 1, ACTIVATION_MAX)
}

/// The activation between two knots of its table, by a straight line; `q` is held in the range of activations.
#[inline(always)]
fn look_up(table: &[i16; TABLE], q: i32) -> i32 {
    let place = (hold(q) + ACTIVATION_MAX + 1) as u32;
    // Below 256, so that both places lie in the table.
    let knot = (place >> KNOT_BITS) as usize % KNOTS;
    let (low, high) = (i32::from(table[knot]), i32::from(table[knot + 1]));
    let share = (place % (1 << KNOT_BITS)) as i32;
    low + (((high - low) * share + (1 << (KNOT_BITS - 1))) >> KNOT_BITS)
}

/// An input as an integer: `x gain` to the nearest, halves to even, held in the range of activations. NaN gives zero.
///
/// In integers where it can be, since a comparison of floats costs a call on a core without an FPU.
#[inline]
pub(super) fn quantise(x: f32, gain: f32) -> i16 {
    // Between 2^23 and 2^24 a float's last bit is a one: the addition rounds, and the mantissa is the integer.
    const SHIFT: f32 = 1.5 * (1 << 23) as f32;
    const LARGE: u32 = (ACTIVATION_MAX as f32).to_bits();
    const INFINITE: u32 = f32::INFINITY.to_bits();
    let scaled = x * gain;
    match scaled.to_bits() & 0x7fff_ffff {
        ..LARGE => (scaled + SHIFT).to_bits().wrapping_sub(SHIFT.to_bits()) as i16,
        LARGE..=INFINITE if scaled.to_bits() >> 31 == 0 => ACTIVATION_MAX as i16,
        LARGE..=INFINITE => -ACTIVATION_MAX as i16,
        _ => 0,
    }
}

/// Words of scratch as sums.
fn sums(words: &mut [f32]) -> &mut [i32] {
    zerocopy::transmute_mut!(words)
}

fn check_biases(biases: &[i32]) -> Result<(), ShapeError> {
    let lawful = biases.iter().all(|b| (-BIAS_MAX..=BIAS_MAX).contains(b));
    if lawful { Ok(()) } else { Err(ShapeError::Value("int8 biases")) }
}

/// Weights from -127 to 127, and zeros where the tiles go beyond the matrix.
fn check_matrix(matrix: &[Tile], rows: usize, columns: usize) -> Result<(), ShapeError> {
    for (index, tile) in matrix.iter().enumerate() {
        let across = columns.div_ceil(COLUMNS).max(1);
        let (top, left) = (index / across * 4, index % across * COLUMNS);
        let tile: &[[i8; 8]; 4] = transmute_ref!(tile);
        for (i, row) in (top..).zip(tile) {
            for (j, weight) in (left..).zip(row) {
                if *weight < -WEIGHT_MAX || (*weight != 0 && (i >= rows || j >= columns)) {
                    return Err(ShapeError::Value("int8 weights"));
                }
            }
        }
    }
    Ok(())
}
