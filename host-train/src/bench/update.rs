//! How fast an algorithm updates, in updates, useful FLOPs, and as a share of what this machine's matrix products reach.
//!
//! **Useful FLOPs** are two for each multiply-accumulate that the update's mathematics needs, whatever the program does:
//! dense layers forward; for a regression also the gradients of the weights and of what is below them; for a gradient
//! with respect to the action the backward pass of one critic, for min(Q_1, Q_2) has the gradient of the smaller one. What
//! depends on the state alone counts once a state, what depends on the time alone once a step. Activations, random
//! numbers, weights of candidates, Adam and averaging count nothing: they show as a smaller share of the peak.
//! [`rfm_macs`] and [`sac_macs`] are the formulas.
//!
//! **Peak** is the best of several shapes of the same `gemm` crate, on one thread, measured in turn with the updates so
//! that both see the same machine. Time is this thread's CPU time. The figures are medians over [`ROUNDS`] rounds after a
//! warm-up, with the slowest and the fastest round beside them.

use crate::agent;
use crate::config::{ActorAt, Algorithm, ControlVariate, RfmConfig, SacConfig};
use crate::nn::matmul;
use crate::noise::Noise;
use crate::replay::{Replay, Transition};
use cpu_time::ThreadTime;

/// Rounds of updates and of matrix products in turn.
pub const ROUNDS: usize = 9;
/// CPU time of the updates of a round, seconds.
const ROUND_SECONDS: f64 = 0.3;
/// CPU time of one matrix product of a round, seconds.
const SHAPE_SECONDS: f64 = 0.04;
/// Transitions in the replay buffer.
const TRANSITIONS: usize = 10_000;
/// Rows, outputs and inputs of the matrix products among which the peak is sought.
const SHAPES: [(usize, usize, usize); 6] =
    [(512, 64, 64), (512, 256, 256), (256, 1024, 256), (512, 512, 512), (1024, 1024, 1024), (2048, 2048, 2048)];

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed {
    /// Updates per second of CPU time: the median, the slowest round, the fastest.
    pub updates: [f64; 3],
    /// Useful GFLOP/s, median.
    pub useful_gflops: f64,
    /// The best shape's GFLOP/s, median.
    pub peak_gflops: f64,
    /// Median over the rounds of useful over peak.
    pub peak_share: f64,
}

/// Measures the updates of `algorithm` with observations of width `obs` and actions of width `act`, each of which needs
/// `macs` multiply-accumulates.
pub fn measure(algorithm: &Algorithm, obs: usize, act: usize, macs: f64) -> Speed {
    let replay = random_replay(obs, act);
    let mut agent = agent::make(algorithm, obs, act, 1);
    let mut update = || {
        agent.update(&replay);
    };
    let mut products: Vec<Product> = SHAPES.into_iter().map(Product::new).collect();
    rate(ROUND_SECONDS, &mut update);
    let (mut updates, mut peaks, mut shares) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let gflops = products.iter_mut().map(|p| p.macs() * 2e-9 * rate(SHAPE_SECONDS, &mut || p.run()));
        let peak = gflops.fold(0.0, f64::max);
        let found = rate(ROUND_SECONDS, &mut update);
        updates.push(found);
        peaks.push(peak);
        shares.push(found * macs * 2e-9 / peak);
    }
    for rounds in [&mut updates, &mut peaks, &mut shares] {
        rounds.sort_by(f64::total_cmp);
    }
    let median = updates[ROUNDS / 2];
    Speed {
        updates: [median, updates[0], updates[ROUNDS - 1]],
        useful_gflops: median * macs * 2e-9,
        peak_gflops: peaks[ROUNDS / 2],
        peak_share: shares[ROUNDS / 2],
    }
}

/// Multiply-accumulates of an update of Reverse Flow Matching.
pub fn rfm_macs(c: &RfmConfig, obs: usize, act: usize) -> f64 {
    let [obs, act, batch, points] = [obs, act, c.train.batch_size, c.actor_batch].map(|n| n as f64);
    let [h, critic_h] = [c.train.actor_hidden, c.train.critic_hidden].map(|n| n as f64);
    let [deep, critic_deep] = [c.train.actor_layers, c.train.critic_layers].map(|n| (n - 1) as f64);
    let [particles, steps, k] = [c.target_particles, c.integration_steps, c.candidates()].map(|n| n as f64);
    let times = 2.0 * c.frequencies.len() as f64;
    // All but what depends on state or time alone.
    let velocity = act * h + deep * h * h + h * act;
    let value = act * critic_h + critic_deep * critic_h * critic_h + critic_h;
    let (state, critic_state) = (obs * h, 2.0 * obs * critic_h);

    let samples = |states: f64| {
        let choice = if particles > 1.0 { critic_state + 2.0 * particles * value } else { 0.0 };
        states * (state + particles * steps * velocity + choice) + steps * times * h
    };
    let more_samples = if c.actor_at == ActorAt::Current { samples(points) } else { 0.0 };
    // Forward, gradients of the weights, and those below all layers but the first.
    let regression = |first: f64, rest: f64| 3.0 * (first + rest) - first;
    let target = batch * (critic_state + 2.0 * value);
    let critics = batch * 2.0 * regression((obs + act) * critic_h, value - act * critic_h);
    let slope = if c.control_variate == ControlVariate::None { 0.0 } else { value };
    let candidates = points * (critic_state + k * (2.0 * value + slope));
    let inputs = obs + act + times + if c.constant_embedding { times } else { 0.0 };
    let actor = points * regression(inputs * h, velocity - act * h);
    // The actor's part of the work is done every so many updates.
    samples(batch) + target + critics + (more_samples + candidates + actor) / c.actor_delay as f64
}

/// Multiply-accumulates of an update of soft actor-critic.
pub fn sac_macs(c: &SacConfig, obs: usize, act: usize) -> f64 {
    let [obs, act, batch] = [obs, act, c.train.batch_size].map(|n| n as f64);
    let [h, critic_h] = [c.train.actor_hidden, c.train.critic_hidden].map(|n| n as f64);
    let [deep, critic_deep] = [c.train.actor_layers, c.train.critic_layers].map(|n| (n - 1) as f64);
    let policy = obs * h + deep * h * h + h * 2.0 * act;
    let rest = critic_deep * critic_h * critic_h + critic_h;
    let critic = (obs + act) * critic_h + rest;
    // Forward at s' and, with both critics, its value; the critics' regression; then at s the policy and the critics
    // forward, the smaller critic back to the action, and the policy back to its weights.
    let critics = 2.0 * critic + 2.0 * (3.0 * critic - (obs + act) * critic_h);
    let actor = 2.0 * critic + act * critic_h + rest + 3.0 * policy - obs * h;
    batch * (policy + critics + actor)
}

/// Calls of `f` per second of this thread's CPU time, over at least `seconds` of it.
fn rate(seconds: f64, f: &mut dyn FnMut()) -> f64 {
    let (start, mut calls, mut burst) = (ThreadTime::now(), 0_u32, 1);
    loop {
        (0..burst).for_each(|_| f());
        calls += burst;
        let spent = start.elapsed().as_secs_f64();
        if spent >= seconds {
            return f64::from(calls) / spent;
        }
        // Reading the clock is a system call: about fifty of them in all.
        burst = (f64::from(calls) * seconds / spent.max(1e-6) / 50.0).clamp(1.0, 1e6) as u32;
    }
}

/// One matrix product with its operands.
struct Product {
    shape: (usize, usize, usize),
    out: Vec<f32>,
    x: Vec<f32>,
    w: Vec<f32>,
}

impl Product {
    fn new(shape: (usize, usize, usize)) -> Self {
        let (rows, outputs, inputs) = shape;
        let mut noise = Noise::new(1, 0);
        let mut filled = |len| {
            let mut v = vec![0.0; len];
            noise.gaussian(&mut v);
            v
        };
        Self { shape, out: vec![0.0; rows * outputs], x: filled(rows * inputs), w: filled(inputs * outputs) }
    }

    fn macs(&self) -> f64 {
        let (rows, outputs, inputs) = self.shape;
        (rows * outputs * inputs) as f64
    }

    fn run(&mut self) {
        matmul::forward(&mut self.out, &self.x, &self.w, self.shape.2, self.shape.1, false);
    }
}

/// Random transitions whose reward is the first channel of the action.
fn random_replay(obs: usize, act: usize) -> Replay {
    let mut noise = Noise::new(1, 1);
    let mut replay = Replay::new(TRANSITIONS, obs, act);
    let (mut s, mut action) = (vec![0.0; 2 * obs], vec![0.0; act]);
    for _ in 0..TRANSITIONS {
        noise.gaussian(&mut s);
        noise.uniform_in(&mut action, -1.0, 1.0);
        let (obs, next_obs) = s.split_at(obs);
        replay.push(Transition { obs, action: &action, reward: action[0], next_obs, terminated: false, last: true });
    }
    replay
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TrainConfig;

    /// The formula against a count by hand, layer by layer, of the smallest network with every part.
    #[test]
    fn multiply_accumulates_of_a_small_update() {
        let train = TrainConfig { actor_hidden: 4, critic_hidden: 5, batch_size: 3, ..TrainConfig::standard() };
        let c = RfmConfig {
            train,
            actor_batch: 2,
            actor_delay: 1,
            integration_steps: 7,
            frequencies: vec![1.0],
            bridge: 6,
            uniform: 0,
            kernel: 0,
            control_variate: ControlVariate::Diagonal,
            ..RfmConfig::standard()
        };
        // obs 2, act 1. Velocity: 4 + 16 + 4; critic: 5 + 25 + 5.
        let sampling = 3 * (8 + 7 * 24) + 7 * 2 * 4;
        let target = 3 * 2 * (10 + 35);
        let critics = 3 * 2 * (2 * (15 + 30) + 30);
        let candidates = 2 * (20 + 6 * 3 * 35);
        let actor = 2 * (2 * (20 + 20) + 20);
        let want = sampling + target + critics + candidates + actor;
        assert_eq!(rfm_macs(&c, 2, 1), f64::from(want));
        let plain = RfmConfig { control_variate: ControlVariate::None, ..c.clone() };
        assert_eq!(rfm_macs(&plain, 2, 1), f64::from(want - 2 * 6 * 35));
        let seldom = RfmConfig { actor_delay: 2, ..c.clone() };
        assert_eq!(rfm_macs(&seldom, 2, 1), f64::from(want) - f64::from(candidates + actor) / 2.0);
        let current = RfmConfig { actor_at: ActorAt::Current, target_particles: 3, ..c };
        let samples = |n: i32| n * (8 + 3 * 7 * 24 + 20 + 2 * 3 * 35) + 7 * 2 * 4;
        assert_eq!(rfm_macs(&current, 2, 1), f64::from(want - sampling + samples(3) + samples(2)));
    }

    #[test]
    fn multiply_accumulates_of_a_small_sac_update() {
        let train = TrainConfig { actor_hidden: 4, critic_hidden: 5, batch_size: 3, ..TrainConfig::standard() };
        let c = SacConfig { train, ..SacConfig::standard() };
        // obs 2, act 1. Policy: 8 + 16 + 8; critic: 15 + 25 + 5.
        let regressions = 2 * (3 * 45 - 15) + 3 * 32 - 8;
        assert_eq!(sac_macs(&c, 2, 1), f64::from(3 * (32 + 2 * 45 + 2 * 45 + 35 + regressions)));
    }

    #[test]
    fn rates_are_calls_over_cpu_time() {
        let mut calls = 0_u32;
        let start = ThreadTime::now();
        let found = rate(0.02, &mut || {
            calls += std::hint::black_box(1);
        });
        let spent = start.elapsed().as_secs_f64();
        assert!(spent >= 0.02 && (found * spent / f64::from(calls) - 1.0).abs() < 0.5, "{found} {spent} {calls}");
    }
}
