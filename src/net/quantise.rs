//! From a velocity network in single precision to int8.
//!
//! Weights are symmetric with a scale for each row, the largest magnitude at 127; activations have one scale a layer, which
//! the caller has measured on states that the policy meets ([`Calibration`]). The arithmetic is that of
//! [`QuantisedNet`](super::QuantisedNet). Deterministic; no panics, no allocation. Meant for the machine that exports: it works
//! in double precision.

use super::kernel::int8::{ACTIVATION_MAX, COLUMNS, ROWS, tiles};
use super::quantised::{BIAS_MAX, HIDDEN_MIN, KNOT_BITS, KNOTS, QuantisedNet, SLICE, WEIGHT_MAX};
use super::{Activation, Trunk, VelocityShape, take};
use crate::math;
use zerocopy::IntoBytes;

/// Largest magnitudes that the integers have to hold, in the network's units; beyond them values are clipped.
#[derive(Debug, Clone, Copy)]
pub struct Calibration<'a> {
    /// Of an input of the first layer: normalised observations, latents and time features, which reach 1.
    pub input: f32,
    /// Of the sums of each hidden layer, before its activation. ReLU does not need them.
    pub sums: &'a [f32],
    /// Of the outputs of each hidden layer, in a residual trunk of what is joined. A residual trunk has one scale for all
    /// its layers, by the largest.
    pub outputs: &'a [f32],
}

/// Why a network cannot be quantised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum QuantiseError {
    /// A slice does not have the length its shape asks for.
    Length(&'static str),
    /// A magnitude of the calibration is not a positive number between 2^-40 and 2^40.
    Calibration,
    /// A weight or bias is not finite or above 2^30 in magnitude.
    Weight,
    /// Weights and activations are too far apart for int8.
    Range,
    /// The hidden layers are less than four units wide.
    Narrow,
}

/// A dense layer in single precision: `w[j * rows + i]` leads from input `j` to output `i`.
struct Dense<'p> {
    w: &'p [f32],
    bias: &'p [f32],
    rows: usize,
}

impl Dense<'_> {
    fn row(&self, i: usize) -> impl Iterator<Item = f64> + Clone {
        self.w.iter().skip(i).step_by(self.rows).map(|w| f64::from(*w))
    }

    fn bias(&self, i: usize) -> f64 {
        self.bias.get(i).map_or(0.0, |b| f64::from(*b))
    }

    /// The unit of row `i`'s weights where its inputs have the unit `input`: so large that the bias has room in the sum.
    fn unit(&self, i: usize, input: f64) -> f64 {
        let largest = self.row(i).fold(0.0, |most: f64, w| most.max(w.abs()));
        (largest / f64::from(WEIGHT_MAX)).max(self.bias(i).abs() / (input * f64::from(BIAS_MAX)))
    }

    /// The largest unit of a row's sum.
    fn largest_unit(&self, input: f64) -> f64 {
        (0..self.rows).fold(0.0, |most: f64, i| most.max(self.unit(i, input) * input))
    }
}

/// `value / unit` to the nearest integer of at most `limit`; zero where the unit is.
fn round(value: f64, unit: f64, limit: i32) -> i32 {
    let limit = f64::from(limit);
    if unit > 0.0 { libm::round(value / unit).clamp(-limit, limit) as i32 } else { 0 }
}

/// Writes words from front to back.
struct Writer<'o>(&'o mut [u32]);

impl<'o> Writer<'o> {
    fn words(&mut self, n: usize) -> Result<&'o mut [u32], QuantiseError> {
        let (head, tail) =
            core::mem::take(&mut self.0).split_at_mut_checked(n).ok_or(QuantiseError::Length("words"))?;
        self.0 = tail;
        head.fill(0);
        Ok(head)
    }

    /// The matrix of columns `from..from + n` of a layer, in slices of at most `slice` columns.
    fn matrix(
        &mut self,
        layer: &Dense<'_>,
        from: usize,
        n: usize,
        slice: usize,
        unit: f64,
    ) -> Result<(), QuantiseError> {
        for start in (0..n).step_by(slice) {
            let columns = (n - start).min(slice);
            let bytes = self.words(8 * tiles(layer.rows, columns))?.as_mut_bytes();
            for i in 0..layer.rows {
                let scale = layer.unit(i, unit);
                for (j, w) in layer.row(i).skip(from + start).take(columns).enumerate() {
                    let tile = i / ROWS * columns.div_ceil(COLUMNS) + j / COLUMNS;
                    let place = (tile * ROWS + i % ROWS) * COLUMNS + j % COLUMNS;
                    let byte = bytes.get_mut(place).ok_or(QuantiseError::Length("words"))?;
                    *byte = round(w, scale, WEIGHT_MAX.into()) as u8;
                }
            }
        }
        Ok(())
    }

    fn each(&mut self, n: usize, value: impl Fn(usize) -> Result<u32, QuantiseError>) -> Result<(), QuantiseError> {
        for (i, word) in self.words(n)?.iter_mut().enumerate() {
            *word = value(i)?;
        }
        Ok(())
    }

    fn bias(&mut self, layer: &Dense<'_>, input: f64) -> Result<(), QuantiseError> {
        self.each(layer.rows, |i| Ok(round(layer.bias(i), layer.unit(i, input) * input, BIAS_MAX) as u32))
    }

    /// Bias, multipliers and table of a hidden layer: from inputs of the unit `input` to sums of `sum` and outputs of `output`.
    fn hidden(
        &mut self,
        layer: &Dense<'_>,
        f: Activation,
        [input, sum, output]: [f64; 3],
    ) -> Result<(), QuantiseError> {
        self.bias(layer, input)?;
        self.each(layer.rows, |i| {
            let multiplier = libm::round(layer.unit(i, input) * input / sum * 4_294_967_296.0);
            if multiplier <= f64::from(i32::MAX) { Ok(multiplier as u32) } else { Err(QuantiseError::Range) }
        })?;
        if f == Activation::Relu {
            return Ok(());
        }
        let knot = |k: usize| {
            let units = (k << KNOT_BITS) as f64 - f64::from(ACTIVATION_MAX + 1);
            let y = f64::from(math::flush(f.value((units * sum) as f32)));
            if k <= KNOTS { round(y, output, ACTIVATION_MAX) as u16 } else { 0 }
        };
        self.each(KNOTS / 2 + 1, |i| Ok(u32::from(knot(2 * i)) | u32::from(knot(2 * i + 1)) << 16))
    }
}

/// Writes the words of the int8 network into `out`, which has [`QuantisedNet::words_of`] of them.
///
/// `params` are those of a [`VelocityNet`](super::VelocityNet) of the same shape.
pub fn quantise(
    shape: &VelocityShape,
    params: &[f32],
    calibration: &Calibration<'_>,
    out: &mut [u32],
) -> Result<(), QuantiseError> {
    use QuantiseError as E;
    if shape.is_empty() || params.len() != shape.params() {
        return Err(E::Length("parameters"));
    }
    if shape.hidden < HIDDEN_MIN {
        return Err(E::Narrow);
    }
    if calibration.sums.len() != shape.layers || calibration.outputs.len() != shape.layers {
        return Err(E::Length("calibrations of the layers"));
    }
    if out.len() != QuantisedNet::words_of(shape) {
        return Err(E::Length("words"));
    }
    const WIDE: f32 = (1u64 << 40) as f32;
    let magnitudes = calibration.sums.iter().chain(calibration.outputs).chain([&calibration.input]);
    if !magnitudes.into_iter().all(|m| (1.0 / WIDE..=WIDE).contains(m)) {
        return Err(E::Calibration);
    }
    if !params.iter().all(|w| w.abs() <= (1u32 << 30) as f32) {
        return Err(E::Weight);
    }

    let (h, mut rest, mut w) = (shape.hidden, params, Writer(out));
    let gain = ACTIVATION_MAX as f32 / calibration.input;
    w.each(1, |_| Ok(gain.to_bits()))?;
    let mut input = 1.0 / f64::from(gain);
    let joined = calibration.outputs.iter().fold(0.0, |most: f32, m| most.max(*m));
    for (number, (sums, outputs)) in calibration.sums.iter().zip(calibration.outputs).enumerate() {
        let columns = if number == 0 { shape.obs + shape.act + 2 * shape.frequencies } else { h };
        let layer = Dense { w: take(&mut rest, columns * h), bias: take(&mut rest, h), rows: h };
        if number == 0 {
            let mut from = 0;
            for n in [shape.obs, shape.act, 2 * shape.frequencies] {
                w.matrix(&layer, from, n, SLICE, input)?;
                from += n;
            }
        } else {
            w.matrix(&layer, 0, h, h, input)?;
        }
        let unit = |magnitude: f32| f64::from(magnitude) / f64::from(ACTIVATION_MAX);
        let residual = shape.trunk == Trunk::Residual;
        let mut output = unit(if residual { joined } else { *outputs });
        // A multiplier is below 1/2: half a unit of the largest sum's scale, or coarser.
        let least = 2.000_001 * layer.largest_unit(input);
        let sum = match shape.activation {
            Activation::Relu => {
                if !residual {
                    output = output.max(least);
                }
                output
            }
            _ => unit(*sums).max(least),
        };
        w.hidden(&layer, shape.activation, [input, sum, output])?;
        input = output;
    }
    let layer = Dense { w: take(&mut rest, h * shape.act), bias: rest, rows: shape.act };
    w.matrix(&layer, 0, h, h, input)?;
    w.bias(&layer, input)?;
    w.each(shape.act, |i| {
        let gain = (layer.unit(i, input) * input) as f32;
        let lawful = gain == 0.0 || (math::FLUSH..=1.0 / math::FLUSH).contains(&gain);
        if lawful { Ok(gain.to_bits()) } else { Err(E::Range) }
    })
}

impl core::fmt::Display for QuantiseError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Length(what) => write!(f, "the {what} do not have the length that the network's shape asks for"),
            Self::Calibration => f.write_str("a magnitude of the calibration is not a number between 2^-40 and 2^40"),
            Self::Weight => f.write_str("a weight is not a number of at most 2^30"),
            Self::Narrow => f.write_str("int8 needs hidden layers of at least 4 units: keep the network in f32"),
            Self::Range => {
                f.write_str("the network's weights and activations are too far apart for int8: keep it in f32")
            }
        }
    }
}

impl core::error::Error for QuantiseError {}
