//! What every algorithm must do: repeat, be saved and restored, be evaluated without being disturbed, and find the better
//! of two actions.

use super::*;
use crate::config::ALGORITHMS;
use crate::replay::Transition;
use crate::state::{Digest, Load, Save};

const OBS: usize = 2;
const ACT: usize = 2;

/// An algorithm's recommended constants, or its published ones on networks of a size for tests.
fn algorithm(name: &str, preset: &str) -> Algorithm {
    let mut algorithm = Algorithm::preset(name, preset).unwrap();
    if preset == "paper" {
        let train = algorithm.train_mut();
        (train.actor_hidden, train.critic_hidden, train.batch_size) = (8, 8, 16);
        match &mut algorithm {
            Algorithm::Rfm(c) => (c.actor_batch, c.bridge, c.particles, c.target_particles) = (16, 8, 3, 3),
            Algorithm::Sac(_) | Algorithm::Qsm(_) => {}
            Algorithm::Qne(c) => (c.actor_batch, c.samples, c.entropy_samples) = (16, 8, 2),
            Algorithm::Dqs(c) => (c.actor_batch, c.samples) = (16, 8),
            Algorithm::Qvpo(c) => (c.actor_batch, c.samples) = (16, 8),
        }
    }
    algorithm
}

fn all() -> impl Iterator<Item = (String, Algorithm)> {
    ["default", "paper"]
        .into_iter()
        .flat_map(|preset| ALGORITHMS.iter().map(move |name| (format!("{name}, {preset}"), algorithm(name, preset))))
}

/// A one-step problem: the reward falls with the distance from the action (s_0, -0.5).
fn replay() -> Replay {
    let mut noise = Noise::new(21, 0);
    let mut replay = Replay::new(3000, OBS, ACT);
    for _ in 0..3000 {
        let (mut s, mut action) = ([0.0; OBS], [0.0; ACT]);
        noise.uniform_in(&mut s, -0.8, 0.8);
        noise.uniform_in(&mut action, -1.0, 1.0);
        let reward = -(action[0] - s[0]).powi(2) - (action[1] + 0.5).powi(2);
        replay.push(Transition { obs: &s, action: &action, reward, next_obs: &s, terminated: true, last: true });
    }
    replay
}

fn digest(agent: &mut dyn Agent) -> u64 {
    Digest::of(|v| agent.visit(v))
}

/// Fifty updates with behaviour between them.
fn train(agent: &mut dyn Agent, replay: &Replay) {
    let mut actions = [0.0; 3 * ACT];
    for _ in 0..50 {
        let stats = agent.update(replay);
        assert!(stats.critic_loss.is_finite() && stats.actor_loss.is_finite() && stats.grad_norm.is_finite());
        agent.act(&[0.1, -0.2, 0.3, 0.4, -0.5, 0.6], &mut actions);
        assert!(actions.iter().all(|a| a.abs() <= 1.0));
    }
}

/// Fifty updates, saved, restored into a fresh agent of another seed, fifty more of both: the same bits, and the same
/// actions. What `visit` forgets would show.
#[test]
fn a_restored_agent_goes_on_as_the_saved_one() {
    let replay = replay();
    for (name, algorithm) in all() {
        let mut agent = make(&algorithm, OBS, ACT, 1);
        let fresh = digest(&mut *agent);
        train(&mut *agent, &replay);
        assert_ne!(digest(&mut *agent), fresh, "{name}");
        let mut save = Save::default();
        agent.visit(&mut save);
        let mut other = make(&algorithm, OBS, ACT, 2);
        let mut load = Load::new(save.arrays);
        other.visit(&mut load);
        load.finish().unwrap();
        let mut both = [agent, other].map(|mut agent| {
            train(&mut *agent, &replay);
            let mut actions = [0.0; ACT];
            agent.act(&[0.2, 0.1], &mut actions);
            (digest(&mut *agent), actions, agent.temperature().to_bits())
        });
        assert_eq!(both[0], both[1], "{name}");
        // The same seed from the start is the same agent too.
        let mut again = make(&algorithm, OBS, ACT, 1);
        train(&mut *again, &replay);
        train(&mut *again, &replay);
        again.act(&[0.2, 0.1], &mut both[0].1);
        assert_eq!(digest(&mut *again), both[1].0, "{name}");
    }
}

/// Evaluating with a stream of its own leaves training as it was, repeats, and allows more rows than training has.
#[test]
fn evaluation_does_not_disturb() {
    let replay = replay();
    for (name, algorithm) in all() {
        let mut agents = [1, 1].map(|seed| make(&algorithm, OBS, ACT, seed));
        for round in 0..3 {
            let mut evaluate = |particles| {
                let mut actions = vec![0.0; 40 * ACT];
                agents[0].evaluate(&[0.1; 40 * OBS], particles, &mut Noise::new(round, 50), &mut actions);
                assert!(actions.iter().all(|a| a.abs() <= 1.0));
                actions
            };
            assert_eq!(evaluate(1), evaluate(1), "{name}");
            assert_eq!(evaluate(600), evaluate(600), "{name}");
            agents.iter_mut().for_each(|agent| {
                agent.update(&replay);
            });
        }
        let [a, b] = agents.each_mut().map(|agent| digest(&mut **agent));
        assert_eq!(a, b, "{name}");
    }
}

/// The recommended constants of every algorithm find the best action of a one-step problem, which moves with the state.
#[test]
fn the_best_action_is_found() {
    let replay = replay();
    for name in ALGORITHMS {
        let mut agent = make(&algorithm(name, "default"), OBS, ACT, 3);
        let states: Vec<f32> = (0..200).flat_map(|i| [i as f32 / 125.0 - 0.8, 0.3]).collect();
        let distance = |agent: &mut dyn Agent, particles: usize| {
            let mut actions = vec![0.0; 200 * ACT];
            agent.evaluate(&states, particles, &mut Noise::new(4, 0), &mut actions);
            let rows = actions.chunks_exact(ACT).zip(states.chunks_exact(OBS));
            rows.map(|(a, s)| (a[0] - s[0]).hypot(a[1] + 0.5)).sum::<f32>() / 200.0
        };
        let before = distance(&mut *agent, 1);
        (0..2000).for_each(|_| {
            agent.update(&replay);
        });
        let (single, greedy) = (distance(&mut *agent, 1), distance(&mut *agent, 16));
        // A Boltzmann policy of temperature lambda keeps a mean distance of about sqrt lambda; uniform actions have .95.
        assert!(before > 0.5 && single < 0.5 && greedy < 0.3, "{name}: {before} before, {single} and {greedy} after");
    }
}
