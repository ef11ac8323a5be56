//! Environments: what the trainer acts on.
//!
//! An [`Env`] is a plant from the `plants` crate with the facts that training needs beside it ([`EnvSpec`]): limits,
//! time limit, default action repeat, reward scale and observation normaliser. [`Decision`] turns control steps into
//! the agent's decisions. Everything computes in `f64`; rewards and returns are unscaled, and only the trainer
//! multiplies by `reward_scale`. Deterministic for a given generator; no panics on any action.

mod cartpole;
mod pendulum;

use crate::{Error, Result};
use rand_xoshiro::Xoshiro256PlusPlus;
use std::collections::BTreeMap;

/// The names that [`make`] knows.
pub const NAMES: [&str; 2] = ["pendulum", "cartpole"];

/// What there is to know about an environment before its first step.
#[derive(Clone, Debug, PartialEq)]
pub struct EnvSpec {
    /// The name on the command line.
    pub name: &'static str,
    /// One sentence for `envs`.
    pub summary: &'static str,
    /// Names of the observation channels.
    pub obs_names: Vec<&'static str>,
    /// Names of the action channels.
    pub act_names: Vec<&'static str>,
    /// Lower action limits.
    pub low: Vec<f32>,
    /// Upper action limits.
    pub high: Vec<f32>,
    /// Seconds of one control step.
    pub control_dt: f64,
    /// Control steps that one decision lasts by default.
    pub action_repeat: usize,
    /// Control steps of an episode; reaching it is a truncation, so the trainer bootstraps.
    pub time_limit: usize,
    /// Default factor on a decision's summed reward for training; returns are reported without it.
    pub reward_scale: f64,
    /// Default normaliser: mean of each observation channel.
    pub obs_mean: Vec<f32>,
    /// Default normaliser: factor on each channel after the mean is taken off.
    pub obs_scale: Vec<f32>,
    /// Default normaliser: largest magnitude that the agent sees.
    pub obs_clip: f32,
    /// Default length of a training run, control steps.
    pub total_timesteps: u64,
}

impl EnvSpec {
    /// Number of observation channels.
    pub fn obs(&self) -> usize {
        self.obs_names.len()
    }

    /// Number of action channels.
    pub fn act(&self) -> usize {
        self.act_names.len()
    }
}

/// The outcome of one control step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Unscaled reward.
    pub reward: f64,
    /// The episode is over for good: nothing to bootstrap from. The time limit is not meant.
    pub terminated: bool,
}

/// A plant to be controlled. Control steps, not decisions.
pub trait Env: Send {
    /// Names, limits and defaults, for the present physical parameters.
    fn spec(&self) -> &EnvSpec;
    /// Draws a start state.
    fn reset(&mut self, rng: &mut Xoshiro256PlusPlus);
    /// Applies an action (clipped to its limits) for one control step.
    ///
    /// `action` has [`EnvSpec::act`] entries.
    fn step(&mut self, action: &[f64]) -> Step;
    /// Writes the observation; `out` has [`EnvSpec::obs`] entries.
    fn observe(&self, out: &mut [f64]);
    /// Sets a physical parameter; limits and control period in the spec follow.
    fn set(&mut self, key: &str, value: f64) -> Result<()>;
    /// The physical parameters with their values.
    fn params(&self) -> Vec<(&'static str, f64)>;
    /// Puts the plant into a recorded state: positions, then speeds.
    fn set_state(&mut self, state: &[f64]) -> Result<()>;
    /// Whether the plant is where it is held to equal its original: a cart on its rail.
    fn within_limits(&self) -> bool {
        true
    }
}

/// Makes an environment with some of its physical parameters replaced.
pub fn make(name: &str, overrides: &BTreeMap<String, f64>) -> Result<Box<dyn Env>> {
    let mut env: Box<dyn Env> = match name {
        "pendulum" => Box::new(pendulum::PendulumEnv::new()),
        "cartpole" => Box::new(cartpole::CartpoleEnv::new()),
        _ => {
            return Err(Error::usage(format!("unknown environment {name:?}: use one of {}", NAMES.join(", "))));
        }
    };
    for (key, &value) in overrides {
        env.set(key, value)?;
    }
    Ok(env)
}

/// The outcome of one decision.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transition {
    /// Sum of the unscaled rewards of its control steps.
    pub reward: f64,
    /// Control steps taken; fewer than the repeat only where the episode ended.
    pub control_steps: usize,
    /// The episode is over for good.
    pub terminated: bool,
    /// The time limit was reached: reset, and bootstrap from the observation before the reset.
    pub truncated: bool,
}

/// An environment seen decision by decision: the action is held for a number of control steps.
pub struct Decision {
    env: Box<dyn Env>,
    action_repeat: usize,
    steps: usize,
    scratch: Vec<f64>,
}

impl Decision {
    /// Wraps an environment; `action_repeat` of 0 counts as 1. Call [`Decision::reset`] before the first step.
    pub fn new(env: Box<dyn Env>, action_repeat: usize) -> Self {
        let scratch = vec![0.0; env.spec().obs()];
        Self { env, action_repeat: action_repeat.max(1), steps: 0, scratch }
    }

    /// The spec of the environment inside.
    pub fn spec(&self) -> &EnvSpec {
        self.env.spec()
    }

    /// Control steps that one decision lasts.
    pub fn action_repeat(&self) -> usize {
        self.action_repeat
    }

    /// Seconds between decisions: the period of the controller.
    pub fn period(&self) -> f64 {
        self.env.spec().control_dt * self.action_repeat as f64
    }

    /// Decisions in an episode that runs to its time limit.
    pub fn decisions_per_episode(&self) -> usize {
        self.env.spec().time_limit.div_ceil(self.action_repeat)
    }

    /// Starts an episode.
    pub fn reset(&mut self, rng: &mut Xoshiro256PlusPlus) {
        self.env.reset(rng);
        self.steps = 0;
    }

    /// Holds `action` (in the plant's units) until the next decision is due or the episode ends.
    pub fn step(&mut self, action: &[f64]) -> Transition {
        let limit = self.env.spec().time_limit;
        let mut t = Transition { reward: 0.0, control_steps: 0, terminated: false, truncated: false };
        while t.control_steps < self.action_repeat && !t.terminated && !t.truncated {
            let step = self.env.step(action);
            self.steps += 1;
            t.control_steps += 1;
            t.reward += step.reward;
            t.terminated = step.terminated;
            t.truncated = !step.terminated && self.steps >= limit;
        }
        t
    }

    /// The observation as a controller's sensors deliver it: rounded to `f32`.
    pub fn observe(&mut self, out: &mut [f32]) {
        self.env.observe(&mut self.scratch);
        for (slot, &value) in out.iter_mut().zip(&self.scratch) {
            *slot = value as f32;
        }
    }
}

/// Copies a recorded state, checking its length.
fn state_of<const N: usize>(name: &str, state: &[f64]) -> Result<[f64; N]> {
    state.try_into().map_err(|_| {
        Error::usage(format!("a state of {name} has {N} numbers and not {}: record it again", state.len()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_xoshiro::rand_core::SeedableRng;

    fn rng(seed: u64) -> Xoshiro256PlusPlus {
        Xoshiro256PlusPlus::seed_from_u64(seed)
    }

    #[test]
    fn specs_agree_with_themselves() {
        for name in NAMES {
            let env = make(name, &BTreeMap::new()).unwrap();
            let s = env.spec();
            assert_eq!(s.name, name);
            assert_eq!((s.obs_mean.len(), s.obs_scale.len()), (s.obs(), s.obs()));
            assert_eq!((s.low.len(), s.high.len()), (s.act(), s.act()));
            assert!(s.low.iter().zip(&s.high).all(|(l, h)| l < h));
            assert_eq!(s.time_limit % s.action_repeat, 0);
            assert!(s.control_dt > 0.0 && s.reward_scale > 0.0 && s.obs_clip > 0.0);
        }
    }

    #[test]
    fn unknown_names_list_the_known() {
        for name in ["cartpole-swingup", "Pendulum", ""] {
            let Err(Error::Usage(sentence)) = make(name, &BTreeMap::new()) else {
                panic!("{name} was accepted");
            };
            assert!(NAMES.iter().all(|n| sentence.contains(n)), "{sentence}");
        }
        let wrong = BTreeMap::from([("masss".to_string(), 1.0)]);
        let Err(Error::Usage(sentence)) = make("pendulum", &wrong) else {
            panic!("masss was accepted");
        };
        assert!(sentence.contains("masss") && sentence.contains("max_torque"), "{sentence}");
    }

    #[test]
    fn physics_moves_limits_and_period() {
        let physics = BTreeMap::from([("max_torque".to_string(), 3.5), ("dt".to_string(), 0.02)]);
        let env = make("pendulum", &physics).unwrap();
        assert_eq!((env.spec().low[0], env.spec().high[0]), (-3.5, 3.5));
        assert_eq!(env.spec().control_dt, 0.02);
        assert!(env.params().contains(&("max_torque", 3.5)));
    }

    /// A decision is the sum of its control steps, and an episode has exactly its time limit.
    #[test]
    fn decisions_sum_control_steps() {
        let mut one = Decision::new(make("cartpole", &BTreeMap::new()).unwrap(), 1);
        let mut four = Decision::new(make("cartpole", &BTreeMap::new()).unwrap(), 4);
        one.reset(&mut rng(5));
        four.reset(&mut rng(5));
        assert_eq!((four.decisions_per_episode(), one.decisions_per_episode()), (250, 1000));
        assert!((four.period() - 0.04).abs() < 1e-15);
        for decision in 0..250 {
            let action = [if decision % 7 < 3 { 0.8 } else { -0.6 }];
            let sum: f64 = (0..4).map(|_| one.step(&action).reward).sum();
            let t = four.step(&action);
            assert_eq!((t.reward, t.control_steps, t.terminated), (sum, 4, false));
            assert_eq!(t.truncated, decision == 249);
        }
        let (mut a, mut b) = ([0.0; 5], [0.0; 5]);
        one.observe(&mut a);
        four.observe(&mut b);
        assert_eq!(a, b);
    }

    /// A repeat that does not divide the time limit is cut short by it.
    #[test]
    fn the_time_limit_cuts_a_decision() {
        let mut env = Decision::new(make("pendulum", &BTreeMap::new()).unwrap(), 3);
        env.reset(&mut rng(1));
        assert_eq!(env.decisions_per_episode(), 67);
        for _ in 0..66 {
            assert_eq!(env.step(&[0.0]).control_steps, 3);
        }
        let last = env.step(&[0.0]);
        assert_eq!((last.control_steps, last.truncated), (2, true));
        env.reset(&mut rng(2));
        assert!(!env.step(&[0.0]).truncated);
    }
}
