//! What an int8 network takes on this board: a dense chain of `i-h-..-h-o` units, instructions and stack.
//!
//! The arguments (default): `i` inputs (24), `h` width of the hidden layers (64), `l` their number (2), `o` outputs (6), `fun`
//! the activation by its number in the artefact (0). The chain is a velocity network without time whose inputs are `i - o`
//! observations and `o` latents: state part, latent part, hidden layers and outputs, with the quantisation of the inputs and the
//! floats of the outputs in the count. Weights are random. The network is made on the device.

#![no_std]
#![no_main]

use flowlet::net::{Activation, Calibration, QuantisedNet, Trunk, VelocityShape, quantise};
use flowlet_firmware::{argument, entry, finish, init, refuse, stack, time};

/// Room for parameters, in words, and for units, channels and layers.
const PARAMS: usize = 30_000;
const WORDS: usize = 9_000;
const UNITS: usize = 128;

fn number(name: &str, default: usize) -> usize {
    argument(name).map_or(default, |n| n as usize)
}

#[entry]
fn main() -> ! {
    init();
    let (inputs, hidden, layers, act) = (number("i", 24), number("h", 64), number("l", 2), number("o", 6));
    let Some(activation) = Activation::from_code(number("fun", 0) as u32) else {
        refuse!("there is no such activation")
    };
    let Some(obs) = inputs.checked_sub(act) else { refuse!("there are more outputs than inputs") };
    let shape = VelocityShape { obs, act, hidden, layers, frequencies: 0, activation, trunk: Trunk::Plain };
    let mut words = [0; WORDS];
    let (Some(words), true) =
        (words.get_mut(..QuantisedNet::words_of(&shape)), inputs <= UNITS && hidden <= UNITS && layers <= 8)
    else {
        refuse!("the network is too large for this program");
    };
    if let Err(error) = make(&shape, words) {
        refuse!("the network cannot be quantised: {}", error);
    }
    let net = match QuantisedNet::new(shape, &[], words) {
        Ok(net) => net,
        Err(error) => refuse!("the network is refused: {}", error),
    };
    let [mut input, mut base, mut a, mut b, mut out] = [[0.0; UNITS]; 5];
    input.iter_mut().enumerate().for_each(|(i, x)| *x = 0.1 * i as f32 - 1.0);
    let (s, x) = input.split_at(obs);
    let (base, a, b, out) = (&mut base[..hidden], &mut a[..hidden], &mut b[..hidden], &mut out[..act]);
    stack::paint();
    let before = stack::depth();
    let (s, x) = (core::hint::black_box(s), core::hint::black_box(&x[..act]));
    let (_, instructions) = time::measure(|| {
        net.state_part(s, base);
        net.velocity(base, x, a, b, out);
    });
    let stack = stack::used().unwrap_or(u32::MAX).saturating_sub(before);
    let macs = shape.macs_of_state_part() + shape.macs_per_evaluation();
    defmt::info!("network: {=usize}-{=usize}x{=usize}-{=usize}", inputs, hidden, layers, act);
    defmt::info!("format: int8");
    defmt::info!("instructions: {=u64}", instructions);
    defmt::info!("macs: {=usize}", macs);
    defmt::info!("stack: {=u32} bytes", stack);
    defmt::info!("digest: {=u64:016x}", flowlet::math::Digest::of(out));
    finish()
}

/// Random weights of variance 1 / inputs, quantised; its floats leave the stack with it.
#[inline(never)]
fn make(shape: &VelocityShape, words: &mut [u32]) -> Result<(), flowlet::net::QuantiseError> {
    let mut params = [0.0; PARAMS];
    let params = &mut params[..shape.params().min(PARAMS)];
    let mut state = 1u32;
    let width = flowlet::math::sqrt(3.0 / shape.hidden as f32);
    for value in params.iter_mut() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *value = width * (((state >> 9) as f32 + 0.5) / (1 << 22) as f32 - 1.0);
    }
    let magnitudes = [4.0; 8];
    let magnitudes = &magnitudes[..shape.layers];
    quantise(shape, params, &Calibration { input: 12.0, sums: magnitudes, outputs: magnitudes }, words)
}
