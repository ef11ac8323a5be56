//! What a dense chain takes on this board: instructions, also per multiply-accumulate, and stack.
//!
//! `d0=24 d1=64 d2=64 d3=6` (the default), `d0=3 d1=64 d2=64 d3=1` or `d0=64 d1=128 d2=128 d3=12`: inputs, two hidden
//! layers with the activation of number `fun` in the artefact (0, ReLU), and outputs without. Bias and activation are part
//! of the count, and so is what calling a layer takes; the weights are f32 constants in flash, the sizes known at compile
//! time. `lanes=1` takes four inputs at once. The log ends with what one activation takes: a layer with it less the same layer without.
//! The weights are random, and so small that activations see numbers of the size of one.

#![no_std]
#![no_main]

use core::hint::black_box;
use flowlet::net::{Activation, LANES, dense};
use flowlet_firmware::{argument, entry, finish, init, refuse, stack, time};

/// Room for the weights of 64-128-128-12.
const WEIGHTS: usize = 26_380;
static FLASH: [f32; WEIGHTS] = weights();

/// Weights of magnitude up to 1/5, by a linear congruential generator (Knuth's constants).
const fn weights() -> [f32; WEIGHTS] {
    let mut values = [0.0; WEIGHTS];
    let (mut state, mut i) = (1u32, 0);
    while i < WEIGHTS {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        values[i] = 0.2 * (((state >> 9) as f32 + 0.5) / (1 << 22) as f32 - 1.0);
        i += 1;
    }
    values
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
    #[inline(never)]
    fn measure(&self, lanes: bool) {
        defmt::info!("network: {=usize}-{=usize}-{=usize}-{=usize}", I, H, H, O);
        defmt::info!("format: f32");
        defmt::info!("activation: {=str}", self.0.name());
        stack::paint();
        let before = stack::depth();
        let (instructions, macs) =
            if lanes { (self.instructions_of_lanes(), LANES * Self::MACS) } else { (self.instructions(), Self::MACS) };
        let used = stack::used().unwrap_or(u32::MAX).saturating_sub(before);
        let hundredths = (100 * instructions + macs as u64 / 2) / macs as u64;
        defmt::info!("instructions: {=u64}", instructions);
        defmt::info!("macs: {=usize}", macs);
        defmt::info!("instructions per multiply-accumulate: {=u64}.{=u64:02}", hundredths / 100, hundredths % 100);
        defmt::info!("stack: {=u32} bytes", used);
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
    match (number("d0", 24), number("d1", 64), number("d2", 64), number("d3", 6)) {
        (24, 64, 64, 6) => Chain::<24, 64, 6>(activation).measure(lanes),
        (3, 64, 64, 1) => Chain::<3, 64, 1>(activation).measure(lanes),
        (64, 128, 128, 12) => Chain::<64, 128, 12>(activation).measure(lanes),
        _ => refuse!("d0, d1, d2 and d3 must be those of 24-64-64-6, 3-64-64-1 or 64-128-128-12"),
    }
    let hundredths = per_activation(activation);
    defmt::info!("instructions per activation: {=u64}.{=u64:02}", hundredths / 100, hundredths % 100);
    finish()
}
