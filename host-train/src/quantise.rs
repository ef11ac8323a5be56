//! int8 policies from f32 ones: calibration at states that the policy meets, and the return that is lost.
//!
//! The f32 policy plays episodes; at states of them its network is evaluated where its plan evaluates it, and the largest
//! magnitude of the inputs, of each hidden layer's sums and of its outputs is noted, and [`rounding`] chooses each weight's integer
//! so that the sums stay what they are there. With [`HEADROOM`] for states that were not
//! met these are the scales of `flowlet::net::quantise`; what lies beyond is clipped. Then both policies play other episodes in
//! pairs, with equal start states and noise, by flowlet on the bytes that would be flashed. Critics and normaliser stay f32.
//!
//! Deterministic for a seed. No panics. Costs the episodes: single samples of both policies, and more where the policy carries
//! a step table, which is measured anew.

mod rounding;

use crate::distill::score::{loss, play, play_random};
use crate::env::Decision;
use crate::evaluate::{ArtefactPlayer, Evaluation, play_plain};
use crate::export::Layers;
use crate::policy::ArtefactBytes;
use crate::profile::entry;
use crate::stats::Summary;
use crate::{Error, Result};
use flowlet::flow::{Plan, Prediction, Reverse, ReverseMethod};
use flowlet::math;
use flowlet::net::{Calibration, QuantisedNet, Trunk, VelocityNet, VelocityShape, dense, quantise as to_words};
use flowlet::policy::Artefact;
use nalgebra::DMatrix;
use rand_xoshiro::Xoshiro128PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;
use rounding::Layer;
use std::sync::atomic::{AtomicBool, Ordering};

/// Scales reach this far beyond the largest magnitude that was seen. A quarter costs a third of one of 13 bits.
const HEADROOM: f32 = 1.25;
/// Episodes that are played to calibrate.
const PLAYED: usize = 16;
/// States of them at which the network is looked at.
const STATES: usize = 2_000;
/// Most evaluations that decide the rounding of weights.
const POINTS: usize = 8_192;
/// Least magnitude of a scale: a layer that is silent at every state still needs one.
const SILENT: f32 = 1.0 / (1 << 20) as f32;
/// Seeds of episodes, apart from those that people ask for and of those of `distill`: to calibrate and to compare.
const CALIBRATION: u64 = 0x5eed_3000_0000;
const TEST: u64 = 0x5eed_4000_0000;

/// What is compared.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Paired episodes, at least two.
    pub episodes: usize,
    /// Seed of everything random.
    pub seed: u64,
}

/// An int8 policy and what it loses.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The policy.
    pub policy: ArtefactBytes,
    /// States at which it was calibrated.
    pub states: usize,
    /// The f32 policy's episodes.
    pub single: Evaluation,
    /// The int8 policy's.
    pub int8: Evaluation,
    /// Return of the f32 policy less that of the int8 one, by pairs.
    pub lost: Summary,
    /// The same in units of what the f32 policy returns above random actions; none where that is nothing.
    pub share: Option<Summary>,
}

/// Makes the int8 policy of an f32 one and compares them in `env`. `say` is told what is going on.
pub fn quantise(
    policy: &ArtefactBytes,
    env: &mut Decision,
    options: Options,
    stop: &AtomicBool,
    say: &mut dyn FnMut(&str),
) -> Result<Outcome> {
    let artefact = policy.artefact()?;
    let net = *artefact.velocity().as_f32().ok_or_else(|| {
        Error::usage(
            "this policy is in int8 already: give the f32 policy that it was made from, or leave --quantize out",
        )
    })?;
    say(&format!("playing {PLAYED} episodes of {} to calibrate", env.spec().name));
    let met = states(policy, env, options.seed)?;
    let points = points(&artefact, &net, &met, options.seed, stop)?;
    let params = rounded(&net, &points);
    let net = VelocityNet::new(*net.shape(), net.frequencies(), &params)
        .map_err(|e| Error::failure(format!("the policy cannot be quantised: {e}")))?;
    let int8 = policy.with_words(&Magnitudes::seen(&net, &points).words(&net)?)?;

    say(&format!("playing {} episodes with f32, int8 and random actions", options.episodes));
    let test = (options.episodes, TEST + options.seed);
    let (single, own) = (play(policy, env, test, stop)?, play(&int8, env, test, stop)?);
    let random = play_random(env, test, stop)?;
    let differences: Vec<f64> = single.returns.iter().zip(&own.returns).map(|(single, int8)| single - int8).collect();
    let share = Some(loss(&own, &single, &random)).filter(|share| !share.mean.is_nan());
    // What f32 returned at other numbers of steps does not hold for int8.
    let mut table = Vec::new();
    for steps in artefact.step_table().map(|e| e.steps as usize) {
        let returns = if steps == artefact.plan().steps {
            own.plain()
        } else {
            play(&int8.revised(Plan { steps, ..*artefact.plan() }, false)?, env, test, stop)?.plain()
        };
        table.push(entry(steps, &returns));
    }
    Ok(Outcome {
        policy: int8.with_step_table(&table)?,
        states: met.len() / artefact.velocity().shape().obs,
        single,
        int8: own,
        lost: Summary::of(&differences),
        share,
    })
}

/// Up to [`STATES`] observations of the policy's own episodes, evenly spread over them.
fn states(policy: &ArtefactBytes, env: &mut Decision, seed: u64) -> Result<Vec<f32>> {
    let plain = policy.revised(*policy.artefact()?.plan(), false)?;
    let mut player = ArtefactPlayer::new(plain.artefact()?)?;
    let obs = env.spec().obs();
    let mut all = Vec::new();
    play_plain(&mut player, env, PLAYED, CALIBRATION + seed, &mut |row| all.extend_from_slice(&row.obs))?;
    let every = (all.len() / obs).div_ceil(STATES).max(1);
    Ok(all.chunks_exact(obs).step_by(every).flatten().copied().collect())
}

/// The inputs of the network, rows of state, latent and time features, at every evaluation on the way from noise to a latent;
/// one way for each observation of `met`.
fn points(
    artefact: &Artefact<'_>,
    net: &VelocityNet<'_>,
    met: &[f32],
    seed: u64,
    stop: &AtomicBool,
) -> Result<Vec<Vec<f32>>> {
    let (shape, plan) = (*net.shape(), *artefact.plan());
    let flow = Reverse {
        schedule: artefact.schedule(),
        source: artefact.source(),
        prediction: Prediction::Velocity,
        method: ReverseMethod::Ode(plan.solver),
        steps: plan.steps,
        t_start: plan.t_start,
        t_end: plan.t_end,
    };
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(CALIBRATION + seed);
    let mut points = Vec::new();
    let (mut s, mut x) = (vec![0.0; shape.obs], vec![0.0; shape.act]);
    let mut scratch = vec![0.0; Reverse::scratch_len(shape.act)];
    for observation in met.chunks_exact(shape.obs) {
        if stop.load(Ordering::SeqCst) {
            return Err(Error::Interrupted("stopped: nothing was written".to_string()));
        }
        artefact
            .normalizer()
            .apply(observation, &mut s)
            .map_err(|at| Error::failure(format!("observation {at} of {} is not finite", artefact.name())))?;
        flow.start(&mut rng, &mut x);
        let mut field = |t: f32, x: &[f32], v: &mut [f32]| {
            let point = [&s, x, &time_features(net.frequencies(), t)].concat();
            Magnitudes::none(shape.layers).evaluate(net, &point, v);
            points.push(point);
        };
        flow.run(&mut field, &mut rng, &mut x, &mut scratch).map_err(|e| Error::failure(e.to_string()))?;
    }
    Ok(points)
}

fn time_features(frequencies: &[f32], t: f32) -> Vec<f32> {
    let (sines, cosines): (Vec<f32>, Vec<f32>) = frequencies.iter().map(|f| math::sin_cos(f * t)).unzip();
    [sines, cosines].concat()
}

/// The parameters with every weight an integer of its row's units, layer by layer by [`rounding`] at up to [`POINTS`] points.
fn rounded(net: &VelocityNet<'_>, points: &[Vec<f32>]) -> Vec<f32> {
    let (shape, layers) = (*net.shape(), Layers::of_velocity(net));
    let chosen: Vec<&Vec<f32>> = points.iter().step_by(points.len().div_ceil(POINTS).max(1)).collect();
    let first = layers.first.iter().flat_map(|(_, _, w)| w.iter().copied()).collect::<Vec<f32>>();
    let mut all = vec![Layer::of(&first, layers.first_bias)];
    all.extend(layers.hidden.iter().map(|(w, bias)| Layer::of(w, bias)));
    all.push(Layer::of(layers.out.0, layers.out.1));
    let inputs = shape.obs + shape.act + 2 * shape.frequencies;
    let mut exact = DMatrix::from_fn(chosen.len(), inputs, |i, j| f64::from(chosen[i][j]));
    let mut found = exact.clone();
    let mut params = Vec::with_capacity(shape.params());
    for (number, layer) in all.iter().enumerate() {
        let wanted = layer.sums(&exact);
        let new = layer.rounded(&found, &wanted);
        params.extend(new.params());
        let activated = |sums: DMatrix<f64>, joined: &DMatrix<f64>| {
            let hidden = sums.map(|z| f64::from(math::flush(shape.activation.value(z as f32))));
            if shape.trunk == Trunk::Residual && number > 0 { hidden + joined } else { hidden }
        };
        if number < shape.layers {
            (exact, found) = (activated(wanted, &exact), activated(new.sums(&found), &found));
        }
    }
    params
}

/// The largest magnitudes inside a network.
#[derive(Clone, Debug, PartialEq)]
struct Magnitudes {
    input: f32,
    sums: Vec<f32>,
    outputs: Vec<f32>,
}

/// Takes in the magnitudes of some values.
fn note(most: &mut f32, values: &[f32]) {
    *most = values.iter().fold(*most, |most, x| most.max(x.abs()));
}

impl Magnitudes {
    fn none(layers: usize) -> Self {
        Self { input: 0.0, sums: vec![0.0; layers], outputs: vec![0.0; layers] }
    }

    /// Those at every point.
    fn seen(net: &VelocityNet<'_>, points: &[Vec<f32>]) -> Self {
        let mut seen = Self::none(net.shape().layers);
        let mut v = vec![0.0; net.shape().act];
        points.iter().for_each(|point| seen.evaluate(net, point, &mut v));
        seen
    }

    /// The velocity of the inputs `point`, as the page of the format describes it; takes in what it passes.
    fn evaluate(&mut self, net: &VelocityNet<'_>, point: &[f32], v: &mut [f32]) {
        let (shape, layers) = (*net.shape(), Layers::of_velocity(net));
        note(&mut self.input, point);
        let mut sums = layers.first_bias.to_vec();
        let mut rest = point;
        for (_, inputs, w) in &layers.first {
            let (input, tail) = rest.split_at(*inputs);
            let start = sums.clone();
            dense(w, input, &start, &mut sums);
            rest = tail;
        }
        let mut hidden = self.activate(&shape, 0, &sums, None);
        for (number, (w, bias)) in layers.hidden.iter().enumerate() {
            dense(w, &hidden, bias, &mut sums);
            let residual = (shape.trunk == Trunk::Residual).then_some(hidden.as_slice());
            hidden = self.activate(&shape, number + 1, &sums, residual);
        }
        dense(layers.out.0, &hidden, layers.out.1, v);
    }

    /// The outputs of a hidden layer from its sums and, in a residual trunk, from what it is joined to.
    fn activate(&mut self, shape: &VelocityShape, layer: usize, sums: &[f32], joined: Option<&[f32]>) -> Vec<f32> {
        let mut hidden: Vec<f32> = sums.iter().map(|z| math::flush(shape.activation.value(*z))).collect();
        note(&mut self.sums[layer], sums);
        note(&mut self.outputs[layer], &hidden);
        if let Some(joined) = joined {
            hidden.iter_mut().zip(joined).for_each(|(h, old)| *h += old);
            note(&mut self.outputs[layer], &hidden);
        }
        hidden
    }

    /// The int8 network by these magnitudes.
    fn words(&self, net: &VelocityNet<'_>) -> Result<Vec<u32>> {
        let wide = |most: &f32| (HEADROOM * most).max(SILENT);
        let (sums, outputs): (Vec<f32>, Vec<f32>) =
            (self.sums.iter().map(wide).collect(), self.outputs.iter().map(wide).collect());
        let mut words = vec![0; QuantisedNet::words_of(net.shape())];
        let calibration = Calibration { input: wide(&self.input), sums: &sums, outputs: &outputs };
        to_words(net.shape(), net.params(), &calibration, &mut words)
            .map_err(|e| Error::failure(format!("the policy cannot be quantised: {e}")))?;
        Ok(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::Noise;
    use flowlet::net::{Activation, VelocityShape};

    const OMEGA: [f32; 2] = [1.0, 3.0];

    fn shape(activation: Activation, trunk: Trunk) -> VelocityShape {
        VelocityShape { obs: 3, act: 2, hidden: 10, layers: 3, frequencies: 2, activation, trunk }
    }

    /// What is noted is noted of the network that runs: the same velocity, whatever its form.
    #[test]
    fn the_magnitudes_are_those_of_the_network_itself() {
        for activation in Activation::ALL {
            for trunk in [Trunk::Plain, Trunk::Residual] {
                let shape = shape(activation, trunk);
                let mut noise = Noise::new(1, 0);
                let mut params = vec![0.0; shape.params()];
                noise.uniform_in(&mut params, -0.7, 0.7);
                let net = VelocityNet::new(shape, &OMEGA, &params).unwrap();
                let (s, x, t) = ([1.0, -3.0, 0.5], [0.25, 2.0], 0.4);
                let [mut state, mut time, mut base, mut a, mut b] = [(); 5].map(|()| vec![0.0; shape.hidden]);
                let (mut wanted, mut found) = ([0.0; 2], [0.0; 2]);
                net.state_part(&s, &mut state);
                net.time_part(t, &mut time);
                net.join(&state, &time, &mut base);
                net.velocity(&base, &x, &mut a, &mut b, &mut wanted);
                let point = [&s[..], &x, &time_features(&OMEGA, t)].concat();
                let mut seen = Magnitudes::none(shape.layers);
                seen.evaluate(&net, &point, &mut found);
                // The parts of the first layer are joined in another order.
                assert!(wanted.iter().zip(found).all(|(w, f)| (w - f).abs() < 1e-5), "{shape:?}: {wanted:?} {found:?}");
                assert_eq!(seen.input, 3.0);
                // Smaller ones change nothing.
                let before = seen.clone();
                seen.evaluate(&net, &point, &mut found);
                assert_eq!(seen, before);
                assert!(seen.sums.iter().chain(&seen.outputs).all(|most| *most > 0.0));
            }
        }
    }

    /// Two units by hand: sums of +-6 x, of which ReLU keeps the positive one, then 0.5 times that.
    #[test]
    fn sums_are_noted_before_the_activation_and_outputs_after_the_joint() {
        for (trunk, last) in [(Trunk::Plain, 6.0), (Trunk::Residual, 18.0)] {
            let shape = VelocityShape {
                obs: 1,
                act: 1,
                hidden: 2,
                layers: 2,
                frequencies: 0,
                ..shape(Activation::Relu, trunk)
            };
            let params = [
                &[0.0, 0.0, 6.0, -6.0][..], // state, latent
                &[0.0, 0.0],
                &[0.5, -0.25, 0.0, 0.0], // from the first unit
                &[0.0, 0.0],
                &[1.0, 1.0, 0.0],
            ];
            let params = params.concat();
            let net = VelocityNet::new(shape, &[], &params).unwrap();
            let mut seen = Magnitudes::none(2);
            let mut v = [0.0];
            seen.evaluate(&net, &[0.5, 2.0], &mut v);
            assert_eq!((seen.input, &seen.sums[..], &seen.outputs[..]), (2.0, &[12.0, 6.0][..], &[12.0, last][..]));
            seen.evaluate(&net, &[0.5, -3.0], &mut v);
            assert_eq!((seen.input, seen.sums[0], seen.outputs[0]), (3.0, 18.0, 18.0));
        }
    }

    /// The integers of the words are the ones that the rounding chose, not rounded once more.
    #[test]
    fn the_words_hold_the_chosen_integers() {
        for activation in [Activation::Relu, Activation::Tanh] {
            let shape = shape(activation, Trunk::Plain);
            let mut noise = Noise::new(2, 0);
            let (mut params, mut points) = (vec![0.0; shape.params()], vec![vec![0.0; 9]; 400]);
            noise.uniform_in(&mut params, -0.7, 0.7);
            points.iter_mut().for_each(|point| noise.uniform_in(point, -1.0, 1.0));
            let net = VelocityNet::new(shape, &OMEGA, &params).unwrap();
            let params = rounded(&net, &points);
            let net = VelocityNet::new(shape, &OMEGA, &params).unwrap();
            let seen = Magnitudes::seen(&net, &points);
            let words = seen.words(&net).unwrap();
            // The first layer's latent matrix: tiles of four rows by eight columns, two of them used.
            let matrix = &words[1 + 24..1 + 48];
            for i in 0..10 {
                let row: Vec<f32> = (0..9).map(|j| params[j * 10 + i]).collect();
                let unit = row.iter().fold(0.0f32, |most, w| most.max(w.abs())) / 127.0;
                for j in 0..2 {
                    let word = matrix[i / 4 * 8 + i % 4 * 2];
                    let stored = f32::from((word >> (8 * j)) as u8 as i8);
                    assert!((stored - row[3 + j] / unit).abs() < 1e-3, "{i} {j}: {stored} {}", row[3 + j] / unit);
                }
            }
        }
    }

    #[test]
    fn a_silent_layer_has_a_scale_too() {
        let shape = shape(Activation::Relu, Trunk::Plain);
        let params = vec![0.0; shape.params()];
        let net = VelocityNet::new(shape, &OMEGA, &params).unwrap();
        let words = Magnitudes::none(shape.layers).words(&net).unwrap();
        QuantisedNet::new(shape, &OMEGA, &words).unwrap();
    }
}
