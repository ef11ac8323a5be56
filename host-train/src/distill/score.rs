//! What one step loses: returns of policies over the same episodes, on a scale where random actions are worth 0 and ten
//! Euler steps of the trained flow 1.
//!
//! Episode `i` of a seed has the same start state and the same noise for every policy ([`crate::evaluate`]), so losses are
//! means of differences of pairs. Every policy is played by flowlet on the bytes that would be flashed. [`stray`] asks
//! whether a one-step policy ends where the flow never does, between two modes for instance.

use super::teacher::{Teacher, one_step};
use crate::Result;
use crate::env::Decision;
use crate::evaluate::{ArtefactPlayer, Evaluation, Player, Protocol, evaluate_until};
use crate::nn::velocity::VelocityNet;
use crate::noise::Noise;
use crate::policy::ArtefactBytes;
use crate::stats::Summary;
use std::sync::atomic::AtomicBool;

/// Farther than this from every action of the flow, in units of half the range of a channel, an action is astray.
pub const ASTRAY: f32 = 0.2;
/// Actions of the flow that stand for all it does in a state.
const CROWD: usize = 64;

/// Draws every action uniformly.
struct Random {
    low: Vec<f32>,
    high: Vec<f32>,
    noise: Noise,
}

impl Player for Random {
    fn is_critical(&self) -> bool {
        false
    }

    fn begin(&mut self, number: u64) {
        self.noise = Noise::new(number, 0);
    }

    fn act(&mut self, _: &[f32], _: Option<usize>, action: &mut [f32]) -> Result<()> {
        for ((a, low), high) in action.iter_mut().zip(&self.low).zip(&self.high) {
            *a = low + (high - low) * self.noise.uniform();
        }
        Ok(())
    }
}

/// Plays episodes with single samples of a policy, by its own plan.
pub fn play(
    policy: &ArtefactBytes,
    env: &mut Decision,
    (episodes, seed): (usize, u64),
    stop: &AtomicBool,
) -> Result<Evaluation> {
    let plain = policy.revised(*policy.artefact()?.plan(), false)?;
    evaluate_until(&mut ArtefactPlayer::new(plain.artefact()?)?, env, Protocol { episodes, seed, best_of: 1 }, stop)
}

/// Plays episodes with random actions.
pub fn play_random(env: &mut Decision, (episodes, seed): (usize, u64), stop: &AtomicBool) -> Result<Evaluation> {
    let (low, high) = (env.spec().low.clone(), env.spec().high.clone());
    let mut player = Random { low, high, noise: Noise::new(0, 0) };
    evaluate_until(&mut player, env, Protocol { episodes, seed, best_of: 1 }, stop)
}

/// By how much a policy falls short of the ten-step one, over paired episodes, in units of what the latter is above random
/// actions. NaN where that is nothing or less: there is no scale then, and a negative one would turn losses into gains.
pub fn loss(policy: &Evaluation, ten: &Evaluation, random: &Evaluation) -> Summary {
    let scale = ten.plain().mean - random.plain().mean;
    let scale = if scale > 0.0 { scale } else { f64::NAN };
    let short: Vec<f64> = ten.returns.iter().zip(&policy.returns).map(|(ten, own)| (ten - own) / scale).collect();
    Summary::of(&short)
}

/// The share of actions that are farther than [`ASTRAY`] in some channel from each of 64 that ten steps of the flow take in
/// the same state; of a one-step network, or with none of ten steps themselves, which is what the measure shows of a perfect
/// student.
pub fn stray(teacher: &mut Teacher, net: Option<&VelocityNet>, states: &[f32], noise: &mut Noise) -> f64 {
    let (obs, act) = (teacher.net.shape().obs, teacher.net.shape().act);
    let rows: Vec<f32> = states.chunks_exact(obs).flat_map(|s| s.repeat(CROWD)).collect();
    let mut crowd = vec![0.0; rows.len() / obs * act];
    noise.gaussian(&mut crowd);
    teacher.carry(&rows, &mut crowd);
    let mut own = vec![0.0; states.len() / obs * act];
    noise.gaussian(&mut own);
    match net {
        Some(net) => one_step(&teacher.config, net.shape()).integrate(net, states, 1, &mut own),
        None => teacher.carry(states, &mut own),
    }
    let far = |a: &[f32], b: &[f32]| a.iter().zip(b).any(|(a, b)| (a.tanh() - b.tanh()).abs() > ASTRAY);
    let alone = own.chunks_exact(act).zip(crowd.chunks_exact(CROWD * act));
    let alone = alone.filter(|(own, crowd)| crowd.chunks_exact(act).all(|other| far(own, other)));
    alone.count() as f64 / (states.len() / obs) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn played(returns: &[f64]) -> Evaluation {
        Evaluation { returns: returns.to_vec(), best_of: None, ways: Vec::new(), best_of_ways: Vec::new() }
    }

    #[test]
    fn a_loss_is_a_mean_of_pairs_and_unknown_without_a_scale() {
        let (ten, random) = (played(&[10.0, 30.0]), played(&[-5.0, 5.0]));
        // Pairs lose 1 and 5 of the 20 that ten steps return above random actions.
        let found = loss(&played(&[9.0, 25.0]), &ten, &random);
        assert!((found.mean - 0.15).abs() < 1e-12 && (found.sd - 0.02f64.sqrt()).abs() < 1e-12, "{found:?}");
        assert_eq!((loss(&random, &ten, &random).mean, loss(&ten, &ten, &random).mean), (1.0, 0.0));
        for ten in [[-10.0, 5.0], [-5.0, 5.0]] {
            assert!(loss(&played(&[-90.0, -80.0]), &played(&ten), &random).mean.is_nan());
        }
    }
}
