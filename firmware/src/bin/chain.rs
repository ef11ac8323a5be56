//! What a dense chain takes on this board: instructions, also per multiply-accumulate, and stack.
//!
//! `d0=24 d1=64 d2=64 d3=6` (the default), `d0=3 d1=64 d2=64 d3=1` or `d0=64 d1=128 d2=128 d3=12`: inputs, two hidden
//! layers with an activation, and outputs without. Bias and activation are part of the count, and so is what calling a layer
//! takes. The weights are random constants in flash.
//!
//! * `format=0` (the default): f32, the sizes known at compile time. `fun` is the activation's number in the artefact (0, ReLU);
//!   `lanes=1` takes four inputs at once. The log ends with what one activation takes: a layer with it less the same layer
//!   without; the weights are so small that activations see numbers of the size of one.
//! * `format=1`: int8 with ReLU. The chain is a velocity network without time whose inputs are observations and as many latents
//!   as there are outputs, which is the same number of multiply-accumulates; rounding the inputs and making floats of the
//!   outputs are in the count.

#![no_std]
#![no_main]

use core::hint::black_box;
use flowlet::net::{Activation, LANES, QuantisedNet, Trunk, VelocityShape, dense};
use flowlet_firmware::{argument, entry, finish, init, refuse, stack, time};

/// Room for the weights of 64-128-128-12.
const WEIGHTS: usize = 26_380;
static FLASH: [f32; WEIGHTS] = weights();

/// The next state of a linear congruential generator (Knuth's constants); its upper bits are the better ones.
const fn random(state: u32) -> u32 {
    state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223)
}

/// Weights of magnitude up to 1/5.
const fn weights() -> [f32; WEIGHTS] {
    let mut values = [0.0; WEIGHTS];
    let (mut state, mut i) = (1, 0);
    while i < WEIGHTS {
        state = random(state);
        values[i] = 0.2 * (((state >> 9) as f32 + 0.5) / (1 << 22) as f32 - 1.0);
        i += 1;
    }
    values
}

static SMALL: [u32; words(24, 64, 6)] = int8(24, 64, 6);
static TINY: [u32; words(3, 64, 1)] = int8(3, 64, 1);
static LARGE: [u32; words(64, 128, 12)] = int8(64, 128, 12);

/// Bytes of weights in the image.
const ALL_WEIGHTS: usize = 4 * (WEIGHTS + SMALL.len() + TINY.len() + LARGE.len());

/// The int8 network of `i` inputs, two hidden layers of `h` units and `o` outputs.
const fn shape(i: usize, h: usize, o: usize) -> VelocityShape {
    let (activation, trunk) = (Activation::Relu, Trunk::Plain);
    VelocityShape { obs: i - o, act: o, hidden: h, layers: 2, frequencies: 0, activation, trunk }
}

const fn words(i: usize, h: usize, o: usize) -> usize {
    QuantisedNet::words_of(&shape(i, h, o))
}

/// Its words as `docs/format.md` lays them out: random weights and biases, and multipliers that keep sums in range.
const fn int8<const N: usize>(i: usize, h: usize, o: usize) -> [u32; N] {
    let mut words = [0; N];
    words[0] = 1000f32.to_bits();
    let mut at = 1;
    at = matrix(&mut words, at, h, i - o);
    at = matrix(&mut words, at, h, o);
    at = rows(&mut words, at, h, 1 << 23);
    at = matrix(&mut words, at, h, h);
    at = rows(&mut words, at, h, 1 << 23);
    at = matrix(&mut words, at, o, h);
    at = rows(&mut words, at, o, 1e-6f32.to_bits());
    assert!(at == N);
    words
}

/// Puts tiles of four rows by eight columns at `at`, zeros beyond the matrix; where they end.
const fn matrix(words: &mut [u32], at: usize, rows: usize, columns: usize) -> usize {
    let across = columns.div_ceil(8);
    let tiles = rows.div_ceil(4) * across;
    let (mut state, mut byte) = (at as u32, 0);
    while byte < 32 * tiles {
        let (tile, row, column) = (byte / 32, byte % 32 / 8, byte % 8);
        if tile / across * 4 + row < rows && tile % across * 8 + column < columns {
            state = random(state);
            let weight = (state >> 24) as u8;
            // -128 is no weight.
            let weight = if weight == 0x80 { 0 } else { weight };
            words[at + byte / 4] |= (weight as u32) << (byte % 4 * 8);
        }
        byte += 1;
    }
    at + 8 * tiles
}

/// Puts `n` biases and as many of `scale` at `at`; where they end.
const fn rows(words: &mut [u32], at: usize, n: usize, scale: u32) -> usize {
    let (mut state, mut row) = (at as u32, 0);
    while row < n {
        state = random(state);
        words[at + row] = state >> 12;
        words[at + n + row] = scale;
        row += 1;
    }
    at + 2 * n
}

/// The network of `I` inputs, two hidden layers of width `H`, and `O` outputs.
struct Chain<const I: usize, const H: usize, const O: usize>(Activation);

impl<const I: usize, const H: usize, const O: usize> Chain<I, H, O> {
    const MACS: usize = I * H + H * H + H * O;

    /// Matrix and bias of a layer whose parameters begin at `start`.
    #[inline(always)]
    fn layer(start: usize, columns: usize, rows: usize) -> (&'static [f32], &'static [f32]) {
        FLASH[start..start + (columns + 1) * rows].split_at(columns * rows)
    }

    #[inline(always)]
    fn layers() -> [(&'static [f32], &'static [f32]); 3] {
        let (second, third) = ((I + 1) * H, (I + 1 + H + 1) * H);
        [Self::layer(0, I, H), Self::layer(second, H, H), Self::layer(third, H, O)]
    }

    #[inline(never)]
    fn pass(&self, x: &[f32; I], a: &mut [f32; H], b: &mut [f32; H], y: &mut [f32; O]) {
        let [first, second, third] = Self::layers();
        self.0.layer(first.0, x, first.1, a);
        self.0.layer(second.0, a, second.1, b);
        dense(third.0, b, third.1, y);
    }

    /// Every lane, the output with the activation too.
    #[inline(never)]
    fn pass_lanes(
        &self,
        x: &[[f32; LANES]; I],
        a: &mut [[f32; LANES]; H],
        b: &mut [[f32; LANES]; H],
        y: &mut [[f32; LANES]; O],
    ) {
        let [first, second, third] = Self::layers();
        self.0.layer_batch(first.0, x, first.1, a);
        self.0.layer_batch(second.0, a, second.1, b);
        self.0.layer_batch(third.0, b, third.1, y);
    }

    /// Measures passes, one input or [`LANES`] at a time.
    fn measure(&self, lanes: bool) {
        defmt::info!("activation: {=str}", self.0.name());
        // Matrices and biases.
        let weights = 4 * (Self::MACS + 2 * H + O);
        if lanes {
            Self::log("f32", LANES * Self::MACS, weights, || self.instructions_of_lanes());
        } else {
            Self::log("f32", Self::MACS, weights, || self.instructions());
        }
        let hundredths = per_activation(self.0);
        defmt::info!("instructions per activation: {=u64}.{=u64:02}", hundredths / 100, hundredths % 100);
    }

    /// Measures passes of the int8 network.
    fn measure_int8(words: &[u32]) {
        let net = match QuantisedNet::new(shape(I, H, O), &[], words) {
            Ok(net) => net,
            Err(error) => refuse!("the int8 network is refused: {}", error),
        };
        let macs = net.shape().macs_of_state_part() + net.shape().macs_per_evaluation();
        Self::log("int8", macs, 4 * words.len(), || Self::instructions_int8(&net));
    }

    /// Does `work`, which counts instructions, and logs them with the stack that it takes.
    #[inline(never)]
    fn log(format: &str, macs: usize, weights: usize, work: impl FnOnce() -> u64) {
        defmt::info!("network: {=usize}-{=usize}-{=usize}-{=usize}", I, H, H, O);
        defmt::info!("format: {=str}", format);
        stack::paint();
        let before = stack::depth();
        let instructions = work();
        let used = stack::used().unwrap_or(u32::MAX).saturating_sub(before);
        let hundredths = (100 * instructions + macs as u64 / 2) / macs as u64;
        defmt::info!("instructions: {=u64}", instructions);
        defmt::info!("macs: {=usize}", macs);
        defmt::info!("instructions per multiply-accumulate: {=u64}.{=u64:02}", hundredths / 100, hundredths % 100);
        defmt::info!("stack: {=u32} bytes", used);
        defmt::info!("weights: {=usize} bytes", weights);
        defmt::info!("weights of all networks: {=usize} bytes", ALL_WEIGHTS);
    }

    #[inline(never)]
    fn instructions(&self) -> u64 {
        let (mut x, mut a, mut b, mut y) = ([0.0; I], [0.0; H], [0.0; H], [0.0; O]);
        x.iter_mut().zip(&FLASH).for_each(|(x, random)| *x = 5.0 * random);
        let x = black_box(&x);
        time::measure(|| black_box(self).pass(x, &mut a, &mut b, &mut y)).1
    }

    #[inline(never)]
    fn instructions_of_lanes(&self) -> u64 {
        let (mut x, mut a, mut b, mut y) = ([[0.0; LANES]; I], [[0.0; LANES]; H], [[0.0; LANES]; H], [[0.0; LANES]; O]);
        x.as_flattened_mut().iter_mut().zip(&FLASH).for_each(|(x, random)| *x = 5.0 * random);
        let x = black_box(&x);
        time::measure(|| black_box(self).pass_lanes(x, &mut a, &mut b, &mut y)).1
    }

    #[inline(never)]
    fn instructions_int8(net: &QuantisedNet<'_>) -> u64 {
        let (mut x, mut base, mut a, mut b, mut y) = ([0.0; I], [0.0; H], [0.0; H], [0.0; H], [0.0; O]);
        x.iter_mut().zip(&FLASH).for_each(|(x, random)| *x = 5.0 * random);
        let (state, latent) = black_box(&x).split_at(I - O);
        let (_, instructions) = time::measure(|| {
            net.state_part(state, &mut base);
            net.velocity(&base, latent, &mut a, &mut b, &mut y);
        });
        black_box(y);
        instructions
    }
}

/// Hundredths of an instruction that an element's activation takes: a hundred layers with it less a hundred without.
#[inline(never)]
fn per_activation(activation: Activation) -> u64 {
    const ROWS: usize = 128;
    let (x, mut y) = ([0.5; 4], [0.0; ROWS]);
    let (w, bias) = FLASH[..5 * ROWS].split_at(4 * ROWS);
    let (mut with, mut without) = (0, 0);
    for i in 0..100u8 {
        let x = black_box(&x).map(|x| x * f32::from(1 + i % 8));
        with += time::measure(|| black_box(activation).layer(w, &x, bias, &mut y)).1;
        without += time::measure(|| dense(w, &x, bias, &mut y)).1;
    }
    with.saturating_sub(without) / ROWS as u64
}

#[entry]
fn main() -> ! {
    init();
    let number = |name, default| argument(name).unwrap_or(default);
    let Some(activation) = Activation::from_code(number("fun", 0) as u32) else {
        refuse!("there is no activation fun")
    };
    let lanes = number("lanes", 0) != 0;
    let int8 = match number("format", 0) {
        0 => false,
        1 if activation == Activation::Relu && !lanes => true,
        1 => refuse!("an int8 chain is of ReLU layers and takes one input at a time: leave fun and lanes out"),
        _ => refuse!("format must be 0, f32, or 1, int8"),
    };
    match (number("d0", 24), number("d1", 64), number("d2", 64), number("d3", 6)) {
        (24, 64, 64, 6) if int8 => Chain::<24, 64, 6>::measure_int8(&SMALL),
        (3, 64, 64, 1) if int8 => Chain::<3, 64, 1>::measure_int8(&TINY),
        (64, 128, 128, 12) if int8 => Chain::<64, 128, 12>::measure_int8(&LARGE),
        (24, 64, 64, 6) => Chain::<24, 64, 6>(activation).measure(lanes),
        (3, 64, 64, 1) => Chain::<3, 64, 1>(activation).measure(lanes),
        (64, 128, 128, 12) => Chain::<64, 128, 12>(activation).measure(lanes),
        _ => refuse!("d0, d1, d2 and d3 must be those of 24-64-64-6, 3-64-64-1 or 64-128-128-12"),
    }
    finish()
}
