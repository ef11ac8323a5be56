//! The kernel of the fast path: dense layers over lanes, where a vector holds one feature of several rows.
//!
//! A [`Lane`] is one feature of [`LANES`] rows. A layer reads one lane per input and writes one per output; eight
//! outputs are summed at a time in registers, each weight broadcast to all rows. So a layer's result is the next one's
//! input as it stands, and whatever follows the sums (bias, activation, mask, output layer) is done to them while they
//! are in registers: that is the [`End`] of a layer. Weights are packed by output block once a pass ([`Packed`]).
//!
//! Which rows stand in which lane is the caller's business; lanes past the last row hold anything finite. Feature `f`
//! of a panel stands at `f * step`, so a panel may be a slice of its own (step 1) or a column of a wider matrix.
//! Vector units are found at run time, by `pulp`; sums are fused multiply-adds in order of the inputs, so the bits
//! depend on whether the machine has them and on nothing else. No allocation outside [`Packed::new`]; slices that are
//! too short panic. One function is unsafe to call, for an instruction that `pulp` lacks.
//!
//! Cost: 95-110 GMAC/s on an AVX-512 core where gemm reaches 95-105 without the ends.

#![expect(clippy::needless_range_loop, reason = "registers are arrays of a constant length that are walked in step")]

use pulp::{Arch, NullaryFnOnce, Scalar, Simd};
use std::sync::LazyLock;

/// Rows in a lane: two AVX-512 vectors, so that eight outputs make sixteen sums, enough to hide the latency.
pub const LANES: usize = 32;
/// Outputs summed at a time.
pub const BLOCK: usize = 8;

static ARCH: LazyLock<Arch> = LazyLock::new(Arch::new);

/// One feature of [`LANES`] rows.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(64))]
pub struct Lane(pub [f32; LANES]);

impl Lane {
    /// All zero.
    pub const ZERO: Self = Self([0.0; LANES]);
}

/// Lanes that `rows` rows need.
pub const fn panels(rows: usize) -> usize {
    rows.div_ceil(LANES)
}

/// Writes row-major `rows` of `width` numbers as lanes: feature `f` of row `r` to lane `f * step + r / LANES`. Lanes
/// past the last row become zero.
pub fn pack(rows: &[f32], width: usize, step: usize, out: &mut [Lane]) {
    for (p, rows) in rows.chunks((LANES * width).max(1)).enumerate() {
        for f in 0..width {
            let lane = &mut out[f * step + p];
            let count = rows.len() / width;
            lane.0.iter_mut().zip(rows[f..].iter().step_by(width)).for_each(|(l, x)| *l = *x);
            lane.0[count..].fill(0.0);
        }
    }
}

/// The reverse of [`pack`].
pub fn unpack(lanes: &[Lane], width: usize, step: usize, rows: &mut [f32]) {
    for (p, rows) in rows.chunks_mut(LANES * width).enumerate() {
        for f in 0..width {
            let lane = &lanes[f * step + p];
            rows[f..].iter_mut().step_by(width).zip(&lane.0).for_each(|(x, l)| *x = *l);
        }
    }
}

/// Writes state-major rows, `group` for each state, as panels of states: number `f` of candidate `c` of state `i` to lane
/// `(i / LANES * group + c) * width + f`. Lanes past the last state become zero.
pub fn pack_groups(rows: &[f32], width: usize, group: usize, out: &mut [Lane]) {
    let row = group * width;
    for (rows, out) in rows.chunks(LANES * row).zip(out.chunks_exact_mut(row)) {
        for (f, lane) in out.iter_mut().enumerate() {
            lane.0.iter_mut().zip(rows[f..].iter().step_by(row)).for_each(|(l, x)| *l = *x);
            lane.0[rows.len() / row..].fill(0.0);
        }
    }
}

/// The reverse of [`pack_groups`].
pub fn unpack_groups(lanes: &[Lane], width: usize, group: usize, rows: &mut [f32]) {
    let row = group * width;
    for (rows, lanes) in rows.chunks_mut(LANES * row).zip(lanes.chunks_exact(row)) {
        for (f, lane) in lanes.iter().enumerate() {
            rows[f..].iter_mut().step_by(row).zip(&lane.0).for_each(|(x, l)| *x = *l);
        }
    }
}

/// Writes `count` rows of `width` numbers, from number `from` on, as one panel with step 1, where each of `rows` stands for
/// `repeat` of them. Lanes past the last row become zero.
pub fn pack_repeated(rows: &[f32], width: usize, repeat: usize, from: usize, count: usize, out: &mut [Lane]) {
    if repeat == 1 {
        return pack(&rows[from * width..(from + count) * width], width, 1, out);
    }
    for (f, lane) in out.iter_mut().enumerate() {
        for (i, l) in lane.0.iter_mut().enumerate() {
            *l = if i < count { rows[(from + i) / repeat * width + f] } else { 0.0 };
        }
    }
}

/// A weight matrix in blocks of eight outputs; in each block eight numbers per input. The last one is padded by zeros.
#[derive(Clone, Debug)]
pub struct Packed {
    inputs: usize,
    outputs: usize,
    blocks: Vec<[f32; BLOCK]>,
}

impl Packed {
    /// Room for a matrix of `inputs` by `outputs`.
    pub fn new(inputs: usize, outputs: usize) -> Self {
        Self { inputs, outputs, blocks: vec![[0.0; BLOCK]; outputs.div_ceil(BLOCK) * inputs] }
    }

    /// Takes the flat matrix `w`, each input's column of outputs contiguous.
    pub fn set(&mut self, w: &[f32]) {
        let Self { inputs, outputs, blocks } = self;
        assert_eq!(w.len(), *inputs * *outputs);
        for (b, block) in blocks.chunks_exact_mut((*inputs).max(1)).enumerate() {
            let (from, to) = (b * BLOCK, (b * BLOCK + BLOCK).min(*outputs));
            for (packed, column) in block.iter_mut().zip(w.chunks_exact(*outputs)) {
                // A copy of a length known beforehand is one instruction, of another a call.
                match column[from..].first_chunk() {
                    Some(whole) => *packed = *whole,
                    None => packed[..to - from].copy_from_slice(&column[from..to]),
                }
            }
        }
    }

    /// Takes the transpose of the flat matrix `w` of this one's `outputs` by `inputs`: the layer's backward pass.
    pub fn set_transposed(&mut self, w: &[f32]) {
        let Self { inputs, outputs, blocks } = self;
        assert_eq!(w.len(), *inputs * *outputs);
        let columns = w.chunks(*inputs * BLOCK);
        for (block, columns) in blocks.chunks_exact_mut((*inputs).max(1)).zip(columns) {
            for (f, column) in columns.chunks_exact(*inputs).enumerate() {
                block.iter_mut().zip(column).for_each(|(packed, w)| packed[f] = *w);
            }
        }
    }
}

/// Where the sums of a layer start.
#[derive(Clone, Copy, Debug)]
pub enum Start<'a> {
    /// At nothing.
    Zero,
    /// At one number per output.
    Bias(&'a [f32]),
    /// At one lane per output.
    Lanes(&'a [Lane]),
    /// At one lane and one number per output.
    LanesAndBias(&'a [Lane], &'a [f32]),
}

/// What becomes of the sums of a layer.
#[derive(Debug)]
pub enum End<'a> {
    /// They are the output; panel and step.
    Store(&'a mut [Lane], usize),
    /// Their positive part is the output; panel and step.
    Relu(&'a mut [Lane], usize),
    /// The same with step 1, and one bit per row and output that says whether the sum was positive.
    ReluBits(&'a mut [Lane], &'a mut [u32]),
    /// Their positive part goes into an output layer of one unit, whose weights and sum these are; bits as before.
    ReluDot(&'a [f32], &'a mut Lane, &'a mut [u32]),
    /// They are the output where the bit of row and output is set, zero elsewhere; step 1.
    Masked(&'a [u32], &'a mut [Lane]),
    /// They are the output where the lane of the same output is positive, zero elsewhere; both with this step.
    Where(&'a [Lane], &'a mut [Lane], usize),
}

/// One layer over one panel of rows: `end(start + w x)`; the lanes of `x` are `step` apart.
pub fn dense(w: &Packed, x: &[Lane], step: usize, start: Start<'_>, end: End<'_>) {
    assert!(x.len() > (w.inputs.max(1) - 1) * step, "a lane per input");
    let layer = Layer { w, x, step, start, end };
    match *ARCH {
        #[cfg(target_arch = "x86_64")]
        Arch::V4(simd) => simd.vectorize(With { simd, layer }),
        #[cfg(target_arch = "x86_64")]
        Arch::V3(simd) => simd.vectorize(With { simd, layer }),
        _ => With { simd: Scalar, layer }.call(),
    }
}

/// Masks as bits, which `pulp` leaves to each vector unit.
trait Bits: Simd {
    /// Bit `i` of the result: element `i` is positive.
    fn positive(self, x: Self::f32s) -> u32;
    /// `x` where the bit of the element is set, else zero.
    fn keep(self, bits: u32, x: Self::f32s) -> Self::f32s;
}

impl Bits for Scalar {
    #[inline(always)]
    fn positive(self, x: f32) -> u32 {
        u32::from(x > 0.0)
    }
    #[inline(always)]
    fn keep(self, bits: u32, x: f32) -> f32 {
        if bits & 1 == 1 { x } else { 0.0 }
    }
}

#[cfg(target_arch = "x86_64")]
impl Bits for pulp::x86::V3 {
    #[inline(always)]
    fn positive(self, x: Self::f32s) -> u32 {
        let mask = self.greater_than_f32s(x, self.splat_f32s(0.0));
        self.avx._mm256_movemask_ps(pulp::cast(mask)) as u32
    }
    #[inline(always)]
    fn keep(self, bits: u32, x: Self::f32s) -> Self::f32s {
        let powers = pulp::u32x8(1, 2, 4, 8, 16, 32, 64, 128);
        let mask = self.equal_u32s(self.and_u32s(self.splat_u32s(bits), powers), powers);
        self.select_f32s(mask, x, self.splat_f32s(0.0))
    }
}

#[cfg(target_arch = "x86_64")]
impl Bits for pulp::x86::V4 {
    #[inline(always)]
    fn positive(self, x: Self::f32s) -> u32 {
        u32::from(self.greater_than_f32s(x, self.splat_f32s(0.0)).0)
    }
    #[inline(always)]
    fn keep(self, bits: u32, x: Self::f32s) -> Self::f32s {
        self.select_f32s(pulp::b16(bits as u16), x, self.splat_f32s(0.0))
    }
}

struct Layer<'a> {
    w: &'a Packed,
    x: &'a [Lane],
    step: usize,
    start: Start<'a>,
    end: End<'a>,
}

struct With<'a, S> {
    simd: S,
    layer: Layer<'a>,
}

impl<S: Bits> NullaryFnOnce for With<'_, S> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        // Sixteen sums where there are registers for them, else eight.
        if S::REGISTER_COUNT >= 32 {
            self.layer.run::<S, 2>(self.simd);
        } else {
            self.layer.run::<S, 1>(self.simd);
        }
    }
}

impl Layer<'_> {
    #[inline(always)]
    fn run<S: Bits, const V: usize>(mut self, simd: S) {
        let w = self.w;
        for (b, block) in w.blocks.chunks_exact(w.inputs.max(1)).enumerate() {
            let (first, last) = (b * BLOCK, (b * BLOCK + BLOCK).min(w.outputs));
            for at in (0..LANES / S::F32_LANES).step_by(V) {
                let mut sums = [[simd.splat_f32s(0.0); V]; BLOCK];
                self.start.fill(simd, first, last, at, &mut sums);
                for (w, x) in block.iter().zip(self.x.iter().step_by(self.step)) {
                    let x = &S::as_simd_f32s(&x.0).0[at..at + V];
                    for f in 0..BLOCK {
                        let w = simd.splat_f32s(w[f]);
                        for v in 0..V {
                            sums[f][v] = simd.mul_add_e_f32s(x[v], w, sums[f][v]);
                        }
                    }
                }
                self.end.take(simd, first, last, at, sums);
            }
        }
    }
}

// The sums of a block are indexed by constants alone, and so stay in registers: hence loops over all eight with a test,
// instead of iterators over those that there are.

impl Start<'_> {
    #[inline(always)]
    fn fill<S: Simd, const V: usize>(
        &self,
        simd: S,
        first: usize,
        last: usize,
        at: usize,
        sums: &mut [[S::f32s; V]; BLOCK],
    ) {
        let (lanes, bias) = match *self {
            Self::Zero => (None, None),
            Self::Bias(bias) => (None, Some(&bias[first..last])),
            Self::Lanes(lanes) => (Some(&lanes[first..last]), None),
            Self::LanesAndBias(lanes, bias) => (Some(&lanes[first..last]), Some(&bias[first..last])),
        };
        if let Some(bias) = bias {
            for f in 0..BLOCK {
                if f < bias.len() {
                    sums[f] = [simd.splat_f32s(bias[f]); V];
                }
            }
        }
        if let Some(lanes) = lanes {
            for f in 0..BLOCK {
                if f < lanes.len() {
                    let lane = &S::as_simd_f32s(&lanes[f].0).0[at..at + V];
                    for v in 0..V {
                        sums[f][v] = simd.add_f32s(sums[f][v], lane[v]);
                    }
                }
            }
        }
    }
}

impl End<'_> {
    #[inline(always)]
    fn take<S: Bits, const V: usize>(
        &mut self,
        simd: S,
        first: usize,
        last: usize,
        at: usize,
        sums: [[S::f32s; V]; BLOCK],
    ) {
        let zero = simd.splat_f32s(0.0);
        let count = last - first;
        match self {
            Self::Store(out, step) => {
                for f in 0..BLOCK {
                    if f < count {
                        store::<S, V>(&mut out[(first + f) * *step], at, sums[f]);
                    }
                }
            }
            Self::Relu(out, step) => {
                for f in 0..BLOCK {
                    if f < count {
                        store::<S, V>(&mut out[(first + f) * *step], at, relu::<S, V>(simd, sums[f]));
                    }
                }
            }
            Self::ReluBits(out, bits) => {
                let (out, bits) = (&mut out[first..last], &mut bits[first..last]);
                for f in 0..BLOCK {
                    if f < count {
                        store::<S, V>(&mut out[f], at, relu::<S, V>(simd, sums[f]));
                        set_bits::<S, V>(simd, &mut bits[f], at, sums[f]);
                    }
                }
            }
            Self::ReluDot(w, q, bits) => {
                let (w, bits) = (&w[first..last], &mut bits[first..last]);
                // Two chains: the outputs with an even number, and those with an odd one.
                let mut dots = [[zero; V]; 2];
                for f in 0..BLOCK {
                    if f < count {
                        let kept = relu::<S, V>(simd, sums[f]);
                        let w = simd.splat_f32s(w[f]);
                        for v in 0..V {
                            dots[f % 2][v] = simd.mul_add_e_f32s(kept[v], w, dots[f % 2][v]);
                        }
                        set_bits::<S, V>(simd, &mut bits[f], at, sums[f]);
                    }
                }
                let q = &mut S::as_mut_simd_f32s(&mut q.0).0[at..at + V];
                for v in 0..V {
                    q[v] = simd.add_f32s(q[v], simd.add_f32s(dots[0][v], dots[1][v]));
                }
            }
            Self::Masked(bits, out) => {
                let (bits, out) = (&bits[first..last], &mut out[first..last]);
                for f in 0..BLOCK {
                    if f < count {
                        let mut kept = sums[f];
                        for v in 0..V {
                            kept[v] = simd.keep(bits[f] >> ((at + v) * S::F32_LANES), kept[v]);
                        }
                        store::<S, V>(&mut out[f], at, kept);
                    }
                }
            }
            Self::Where(lanes, out, step) => {
                for f in 0..BLOCK {
                    if f < count {
                        let o = (first + f) * *step;
                        let lane = &S::as_simd_f32s(&lanes[o].0).0[at..at + V];
                        let mut kept = sums[f];
                        for v in 0..V {
                            kept[v] = simd.select_f32s(simd.greater_than_f32s(lane[v], zero), kept[v], zero);
                        }
                        store::<S, V>(&mut out[o], at, kept);
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn relu<S: Simd, const V: usize>(simd: S, mut sums: [S::f32s; V]) -> [S::f32s; V] {
    for v in 0..V {
        sums[v] = simd.max_f32s(sums[v], simd.splat_f32s(0.0));
    }
    sums
}

#[inline(always)]
fn store<S: Simd, const V: usize>(out: &mut Lane, at: usize, values: [S::f32s; V]) {
    S::as_mut_simd_f32s(&mut out.0).0[at..at + V].copy_from_slice(&values);
}

#[inline(always)]
fn set_bits<S: Bits, const V: usize>(simd: S, bits: &mut u32, at: usize, sums: [S::f32s; V]) {
    let mut found = 0;
    for v in 0..V {
        found |= simd.positive(sums[v]) << ((at + v) * S::F32_LANES);
    }
    *bits = if at == 0 { found } else { *bits | found };
}

/// Moves the bits of `bits` that are `chosen` together, keeping their order, and adds them to `pending` behind its
/// `fill` lowest bits; one mask per feature. This is how rows scattered over panels become a panel of their own.
pub fn squeeze(bits: &[u32], chosen: u32, fill: u32, pending: &mut [u64]) {
    #[cfg(target_arch = "x86_64")]
    if matches!(*ARCH, Arch::V3(_) | Arch::V4(_)) {
        // SAFETY: both of these machines have BMI2, which is among what `pulp` asked the processor for.
        unsafe { squeeze_bmi2(bits, chosen, fill, pending) };
        return;
    }
    for (pending, bits) in pending.iter_mut().zip(bits) {
        let (mut left, mut place, mut found) = (chosen, 0, 0_u32);
        while left != 0 {
            found |= (bits >> left.trailing_zeros() & 1) << place;
            (left, place) = (left & (left - 1), place + 1);
        }
        *pending |= u64::from(found) << fill;
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "bmi2")]
fn squeeze_bmi2(bits: &[u32], chosen: u32, fill: u32, pending: &mut [u64]) {
    for (pending, bits) in pending.iter_mut().zip(bits) {
        *pending |= u64::from(std::arch::x86_64::_pext_u32(*bits, chosen)) << fill;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::Noise;

    fn filled(len: usize, noise: &mut Noise) -> Vec<f32> {
        let mut v = vec![0.0; len];
        noise.gaussian(&mut v);
        v
    }

    fn lanes(count: usize, noise: &mut Noise) -> Vec<Lane> {
        filled(count * LANES, noise).chunks_exact(LANES).map(|c| Lane(c.try_into().unwrap())).collect()
    }

    /// Every start and every end, for sizes that fill blocks and that do not, against sums in f64.
    #[test]
    fn layers_equal_their_definition() {
        let mut noise = Noise::new(1, 0);
        for (inputs, outputs, step) in [(1, 1, 1), (6, 64, 1), (23, 17, 3), (64, 8, 2), (5, 40, 1)] {
            let weights = filled(inputs * outputs, &mut noise);
            let (bias, dot) = (filled(outputs, &mut noise), filled(outputs, &mut noise));
            let x = lanes(inputs * step, &mut noise);
            let parts = lanes(outputs, &mut noise);
            let mut w = Packed::new(inputs, outputs);
            w.set(&weights);
            let mut transposed = Packed::new(inputs, outputs);
            let flipped: Vec<f32> = (0..inputs * outputs).map(|i| weights[i % inputs * outputs + i / inputs]).collect();
            transposed.set_transposed(&flipped);
            assert_eq!(w.blocks, transposed.blocks);

            let sum = |o: usize, r: usize| -> f64 {
                (0..inputs).map(|i| f64::from(x[i * step].0[r]) * f64::from(weights[i * outputs + o])).sum()
            };
            for (start, extra) in [
                (Start::Zero, [0.0, 0.0]),
                (Start::Bias(&bias), [1.0, 0.0]),
                (Start::Lanes(&parts), [0.0, 1.0]),
                (Start::LanesAndBias(&parts, &bias), [1.0, 1.0]),
            ] {
                let want = |o: usize, r: usize| {
                    sum(o, r) + extra[0] * f64::from(bias[o]) + extra[1] * f64::from(parts[o].0[r])
                };
                let check = |out: &[Lane], step: usize, f: &dyn Fn(usize, usize, f64) -> f64| {
                    for o in 0..outputs {
                        for r in 0..LANES {
                            let (got, want) = (f64::from(out[o * step].0[r]), f(o, r, want(o, r)));
                            assert!((got - want).abs() < 1e-4, "{inputs} {outputs} {o} {r}: {got} {want}");
                        }
                    }
                };
                let mut out = vec![Lane::ZERO; outputs * 2];
                let (mut bits, mut more) = (vec![u32::MAX; outputs], vec![u32::MAX; outputs]);
                dense(&w, &x, step, start, End::Store(&mut out, 2));
                check(&out, 2, &|_, _, z| z);
                dense(&w, &x, step, start, End::Relu(&mut out, 2));
                check(&out, 2, &|_, _, z| z.max(0.0));
                dense(&w, &x, step, start, End::Where(&parts, &mut out, 1));
                check(&out, 1, &|o, r, z| if parts[o].0[r] > 0.0 { z } else { 0.0 });
                dense(&w, &x, step, start, End::ReluBits(&mut out, &mut bits));
                check(&out, 1, &|_, _, z| z.max(0.0));
                for o in 0..outputs {
                    (0..LANES).for_each(|r| assert_eq!(bits[o] >> r & 1 == 1, out[o].0[r] > 0.0));
                }
                let mut q = Lane([0.25; LANES]);
                dense(&w, &x, step, start, End::ReluDot(&dot, &mut q, &mut more));
                assert_eq!(bits, more);
                for r in 0..LANES {
                    let want: f64 = (0..outputs).map(|o| want(o, r).max(0.0) * f64::from(dot[o])).sum();
                    assert!((f64::from(q.0[r]) - want - 0.25).abs() < 5e-4);
                }
                dense(&w, &x, step, start, End::Masked(&bits, &mut out));
                check(&out, 1, &|o, r, z| if bits[o] >> r & 1 == 1 { z } else { 0.0 });
            }
        }
    }

    #[test]
    fn rows_become_lanes_and_rows_again() {
        let mut noise = Noise::new(2, 0);
        for (rows, width) in [(1, 1), (32, 3), (70, 5), (100, 17)] {
            let start = filled(rows * width, &mut noise);
            let step = panels(rows) + 1;
            let mut lanes = vec![Lane([9.0; LANES]); width * step];
            pack(&start, width, step, &mut lanes);
            let (r, f) = (rows - 1, width - 1);
            assert_eq!(lanes[f * step + r / LANES].0[r % LANES], start[r * width + f]);
            assert!(lanes[f * step + r / LANES].0[r % LANES + 1..].iter().all(|x| *x == 0.0));
            let mut back = vec![0.0; rows * width];
            unpack(&lanes, width, step, &mut back);
            assert_eq!(start, back);
            // One panel of the rows, and one of each of them three times.
            let mut panel = vec![Lane([9.0; LANES]); width];
            let count = rows.min(LANES);
            pack_repeated(&start, width, 1, rows - count, count, &mut panel);
            assert_eq!(panel[f].0[count - 1], start[r * width + f]);
            pack_repeated(&start, width, 3, 3 * rows - 2, 2, &mut panel);
            assert_eq!(panel[f].0[..3], [start[r * width + f], start[r * width + f], 0.0]);
            // As states of two candidates, or of one.
            let group = if rows % 2 == 0 { 2 } else { 1 };
            let mut lanes = vec![Lane([9.0; LANES]); panels(rows / group) * group * width];
            pack_groups(&start, width, group, &mut lanes);
            let (i, c) = (r / group, r % group);
            assert_eq!(lanes[(i / LANES * group + c) * width + f].0[i % LANES], start[r * width + f]);
            assert!(lanes[(i / LANES * group + c) * width + f].0[i % LANES + 1..].iter().all(|x| *x == 0.0));
            back.fill(0.0);
            unpack_groups(&lanes, width, group, &mut back);
            assert_eq!(start, back);
        }
    }

    #[test]
    fn squeezing_keeps_the_chosen_bits_in_order() {
        let bits = [0b1011_0110, u32::MAX, 0, 1 << 31];
        let mut pending = [0b1, 0, 0b10, 0];
        squeeze(&bits, 0b1000_0000_0000_0000_0000_0000_1110_0010, 2, &mut pending);
        assert_eq!(pending, [0b010_1101, 0b111_1100, 0b10, 0b100_0000]);
    }
}
