//! What a dense chain takes on this board: instructions, also per multiply-accumulate, and stack.
//!
//! The chain has `in` inputs (24), `l` hidden layers (2) of width `h` (64) with the activation of number `fun` in the
//! artefact (0, ReLU), and `out` outputs (6): 24-64-64-6 without arguments. Bias and activation are part of the count, and
//! so is what calling a layer takes; the weights are constants in flash, the sizes known at run time alone. `lanes=1`
//! takes four inputs at once. The log ends with what one activation takes: a layer with it less the same layer without.
//! The weights are random, and so small that activations see numbers of the size of one.

#![no_std]
#![no_main]

use core::hint::black_box;
use flowlet::net::{Activation, LANES, dense};
use flowlet_firmware::{Cost, argument, entry, finish, init, refuse, stack, time};

/// Room for the weights of 64-128-128-12.
const WEIGHTS: usize = 26_380;
const WIDEST: usize = 128;

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

/// A layer over weights in flash.
#[derive(Clone, Copy)]
struct Layer {
    w: &'static [f32],
    bias: &'static [f32],
    columns: usize,
}

const MOST_LAYERS: usize = 8;

/// A chain of layers, the output the last.
struct Chain {
    layers: [Layer; MOST_LAYERS],
    count: usize,
    activation: Activation,
}

impl Chain {
    /// `None` where the program has no room for it.
    fn new(inputs: usize, hidden: usize, count: usize, outputs: usize, activation: Activation) -> Option<Self> {
        let empty = Layer { w: &[], bias: &[], columns: 0 };
        let mut chain = Self { layers: [empty; MOST_LAYERS], count, activation };
        let (mut rest, mut columns) = (&FLASH[..], inputs);
        for (i, layer) in chain.layers.get_mut(..count)?.iter_mut().enumerate() {
            let rows = if i + 1 < count { hidden } else { outputs };
            let (w, tail) = rest.split_at_checked(rows * columns)?;
            let (bias, tail) = tail.split_at_checked(rows)?;
            *layer = Layer { w, bias, columns };
            (rest, columns) = (tail, rows);
        }
        (inputs.max(hidden).max(outputs) <= WIDEST).then_some(chain)
    }

    fn macs(&self) -> usize {
        self.layers.iter().map(|layer| layer.w.len()).sum()
    }

    /// One pass; the input is in `a`, the result in one of the two.
    #[inline(never)]
    fn pass(&self, a: &mut [f32; WIDEST], b: &mut [f32; WIDEST]) {
        let (mut from, mut to) = (a, b);
        let Some((last, hidden)) = self.layers[..self.count].split_last() else { return };
        for Layer { w, bias, columns } in hidden {
            self.activation.layer(w, &from[..*columns], bias, &mut to[..bias.len()]);
            core::mem::swap(&mut from, &mut to);
        }
        dense(last.w, &from[..last.columns], last.bias, &mut to[..last.bias.len()]);
    }

    /// One pass for every lane, the output layer with the activation too.
    #[inline(never)]
    fn pass_lanes(&self, a: &mut [[f32; LANES]; WIDEST], b: &mut [[f32; LANES]; WIDEST]) {
        let (mut from, mut to) = (a, b);
        for Layer { w, bias, columns } in &self.layers[..self.count] {
            self.activation.layer_batch(w, &from[..*columns], bias, &mut to[..bias.len()]);
            core::mem::swap(&mut from, &mut to);
        }
    }
}

fn number(name: &str, default: usize) -> usize {
    argument(name).map_or(default, |n| n as usize)
}

fn report(instructions: u64, macs: usize) {
    let hundredths = (100 * instructions + macs as u64 / 2) / macs as u64;
    defmt::info!("instructions: {=u64}", instructions);
    defmt::info!("macs: {=usize}", macs);
    defmt::info!("instructions per multiply-accumulate: {=u64}.{=u64:02}", hundredths / 100, hundredths % 100);
}

#[inline(never)]
fn single(chain: &Chain) {
    let (mut a, mut b) = ([0.5; WIDEST], [0.0; WIDEST]);
    let mut cost = Cost::default();
    for _ in 0..10 {
        a.iter_mut().zip(&FLASH).for_each(|(a, random)| *a = 5.0 * random);
        let ((), instructions) = time::measure(|| black_box(chain).pass(&mut a, &mut b));
        cost.record(instructions);
    }
    report(cost.mean(), chain.macs());
}

#[inline(never)]
fn lanes(chain: &Chain) {
    let (mut a, mut b) = ([[0.5; LANES]; WIDEST], [[0.0; LANES]; WIDEST]);
    let mut cost = Cost::default();
    for _ in 0..10 {
        a.as_flattened_mut().iter_mut().zip(&FLASH).for_each(|(a, random)| *a = 5.0 * random);
        let ((), instructions) = time::measure(|| black_box(chain).pass_lanes(&mut a, &mut b));
        cost.record(instructions);
    }
    report(cost.mean(), LANES * chain.macs());
}

/// Hundredths of an instruction that an element's activation takes: 100 layers with it less 100 without.
#[inline(never)]
fn activation(activation: Activation) -> u64 {
    let (x, mut y) = ([0.5; 4], [0.0; WIDEST]);
    let (w, bias) = (&FLASH[..4 * WIDEST], &FLASH[4 * WIDEST..5 * WIDEST]);
    let (mut with, mut without) = (0, 0);
    for i in 0..100 {
        let x = black_box(&x).map(|x| x * (1 + i % 8) as f32);
        with += time::measure(|| black_box(activation).layer(w, &x, bias, &mut y)).1;
        without += time::measure(|| dense(w, &x, bias, &mut y)).1;
    }
    with.saturating_sub(without) / WIDEST as u64
}

#[entry]
fn main() -> ! {
    init();
    let Some(function) = Activation::from_code(number("fun", 0) as u32) else { refuse!("there is no activation fun") };
    let (inputs, hidden, layers, outputs) = (number("in", 24), number("h", 64), number("l", 2), number("out", 6));
    let Some(chain) = Chain::new(inputs, hidden, layers + 1, outputs, function) else {
        refuse!("the chain is too large for this program");
    };
    match layers {
        1 => defmt::info!("network: {=usize}-{=usize}-{=usize}", inputs, hidden, outputs),
        2 => defmt::info!("network: {=usize}-{=usize}-{=usize}-{=usize}", inputs, hidden, hidden, outputs),
        n => defmt::info!("network: {=usize}-{=usize}x{=usize}-{=usize}", inputs, hidden, n, outputs),
    }
    defmt::info!("format: f32");
    defmt::info!("activation: {=str}", function.name());
    stack::paint();
    let before = stack::depth();
    if number("lanes", 0) == 1 {
        lanes(&chain)
    } else {
        single(&chain)
    }
    defmt::info!("stack: {=u32} bytes", stack::used().unwrap_or(u32::MAX).saturating_sub(before));
    let hundredths = activation(function);
    defmt::info!("instructions per activation: {=u64}.{=u64:02}", hundredths / 100, hundredths % 100);
    finish()
}
