//! Environments: what the trainer acts on.
//!
//! An [`Env`] is a plant with the facts that training needs beside it ([`EnvSpec`]): limits, time limit, default action
//! repeat, reward scale and observation normaliser. [`make`] knows the plants of the `plants` crate and, with the feature
//! `mujoco`, the tasks of the Control Suite by name, and any continuous Gymnasium environment as `gym:ID`; an `Env` of your own goes to the trainer directly. [`Decision`] turns
//! control steps into the agent's decisions and refuses what is not finite. [`varied`] adds delay, sensor noise and
//! spreads of every parameter.
//!
//! Everything computes in `f64`; rewards and returns are unscaled, and only the trainer multiplies by `reward_scale`.
//! An episode is a function of the generator's state at its reset and of the actions; no panics on any action.

mod acrobot;
mod cartpole;
mod decision;
mod fork;
mod furuta;
mod gym;
mod pendulum;
mod quadrotor2d;
#[cfg(feature = "mujoco")]
mod suite;
mod varied;

#[cfg(feature = "render")]
pub use suite::Scene;

pub use decision::{Decision, Transition};
pub use varied::{is_variation, varied};

use crate::{Error, Result};
use plants::ParamError;
use rand_xoshiro::Xoshiro256PlusPlus;
use std::collections::BTreeMap;

/// The plants that [`make`] knows by name.
pub const NAMES: [&str; 6] = ["pendulum", "cartpole", "acrobot", "furuta", "quadrotor2d", "fork"];

/// The names of everything that [`make`] makes here: the plants, and with the feature `mujoco` the Control Suite's tasks.
pub fn known() -> Vec<&'static str> {
    #[cfg(feature = "mujoco")]
    return NAMES.into_iter().chain(suite::names()).collect();
    #[cfg(not(feature = "mujoco"))]
    NAMES.to_vec()
}

/// The name of a task of the Control Suite, where this program has it.
pub fn suite_task(name: &str) -> Option<&'static str> {
    known().into_iter().skip(NAMES.len()).find(|task| *task == name)
}

/// A task of the Control Suite, where this program has it.
#[cfg(feature = "mujoco")]
fn task(name: &str) -> Option<Result<Box<dyn Env>>> {
    suite::SuiteEnv::new(name).map(|env| Ok(Box::new(env?) as Box<dyn Env>))
}

#[cfg(not(feature = "mujoco"))]
fn task(_: &str) -> Option<Result<Box<dyn Env>>> {
    None
}

/// What there is to know about an environment before its first step.
#[derive(Clone, Debug, PartialEq)]
pub struct EnvSpec {
    /// The name on the command line; up to 32 bytes, so that an artefact can hold it.
    pub name: String,
    /// One sentence for `envs`.
    pub summary: String,
    /// Names of the observation channels, up to 16 bytes each.
    pub obs_names: Vec<String>,
    /// Names of the action channels, up to 16 bytes each.
    pub act_names: Vec<String>,
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
    /// The default mean and scale are guesses: by default training fits them to what it sees.
    pub obs_unknown: bool,
    /// Default length of a training run, control steps.
    pub total_timesteps: u64,
    /// Which of the recommended constants are its default ones.
    pub constants: Constants,
}

/// The two sets of recommended constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Constants {
    /// Small networks that a microcontroller runs with ease.
    Small,
    /// Wider networks, normalised critics, their mean for a target, more updates: for bodies with many joints.
    Large,
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
    /// The environment itself broke the episode off, before the time limit of its spec: the trainer bootstraps.
    pub truncated: bool,
}

impl Step {
    /// A step after which the episode goes on.
    pub fn on(reward: f64) -> Self {
        Self { reward, terminated: false, truncated: false }
    }
}

/// A state of the physics as a record has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Positions of all joints.
    pub positions: Vec<f64>,
    /// Their speeds.
    pub speeds: Vec<f64>,
    /// States of the actuators that have one.
    pub activations: Vec<f64>,
    /// The controls in force; at the start of an episode there are none.
    pub controls: Option<Vec<f64>>,
    /// Accelerations from which the solver of the constraints starts.
    pub warmstart: Option<Vec<f64>>,
    /// Seconds since the start.
    pub time: f64,
    /// Entries of the model that the reset wrote, by array, kind and name: `geom_pos:geom:target`.
    pub model: BTreeMap<String, Vec<f64>>,
}

/// A plant to be controlled. Control steps, not decisions.
///
/// `spec`, `reset`, `step` and `observe` are what there must be; an environment of your own can leave out the rest.
pub trait Env: Send {
    /// Names, limits and defaults, for the present physical parameters.
    fn spec(&self) -> &EnvSpec;
    /// Draws a start state. What is random in the episode must come from `rng` here.
    fn reset(&mut self, rng: &mut Xoshiro256PlusPlus) -> Result<()>;
    /// Applies an action (clipped to its limits) for one control step.
    ///
    /// `action` has [`EnvSpec::act`] entries.
    fn step(&mut self, action: &[f64]) -> Result<Step>;
    /// Writes the observation; `out` has [`EnvSpec::obs`] entries. Asking twice gives the same answer.
    fn observe(&self, out: &mut [f64]);
    /// Sets a physical parameter; limits and control period in the spec follow.
    fn set(&mut self, key: &str, value: f64) -> Result<()> {
        let _ = value;
        Err(Error::usage(format!("env.{key}: {} has no physical parameters", self.spec().name)))
    }
    /// The physical parameters with their values.
    fn params(&self) -> Vec<(String, f64)> {
        Vec::new()
    }
    /// Those of the parameters that choose between cases, so that nothing lies between two of their values.
    fn switches(&self) -> &'static [&'static str] {
        &[]
    }
    /// Puts the plant into a recorded state: positions, then speeds.
    fn set_state(&mut self, state: &[f64]) -> Result<()> {
        let _ = state;
        Err(Error::usage(format!("{} cannot be put into a recorded state", self.spec().name)))
    }
    /// The same with all that a record of the Control Suite holds; what the plant has not is left out.
    fn place(&mut self, state: &State) -> Result<()> {
        self.set_state(&[&state.positions[..], &state.speeds].concat())
    }
    /// Positions, speeds and activations, where they can be told.
    fn state(&self) -> Option<State> {
        None
    }
    /// The reward of the present state, where it is a function of that alone.
    fn reward(&self) -> Option<f64> {
        None
    }
    /// What went wrong where the environment itself ended the episode: physics that diverged.
    fn fault(&self) -> Option<&'static str> {
        None
    }
    /// Whether the plant is where it is held to equal its original: a cart on its rail.
    fn within_limits(&self) -> bool {
        true
    }
    /// How well the task is done, in [0, 1], by the sensors alone: what a guard judges policies by. None where nobody has
    /// said what it is.
    fn metric(&self, observation: &[f32]) -> Option<f32> {
        let _ = observation;
        None
    }
    /// Which of several ways the episode so far has taken, where the task has more than one: `none` before any.
    fn way(&self) -> Option<&'static str> {
        None
    }
    /// What MuJoCo draws, where it simulates the plant.
    #[cfg(feature = "render")]
    fn scene(&mut self) -> Option<&mut Scene> {
        None
    }
}

/// Makes an environment with some of its parameters replaced: a name of [`NAMES`], or `gym:ID`.
pub fn make(name: &str, overrides: &BTreeMap<String, f64>) -> Result<Box<dyn Env>> {
    let plain: Box<dyn Env> = match name {
        "pendulum" => Box::new(pendulum::PendulumEnv::new()),
        "cartpole" => Box::new(cartpole::CartpoleEnv::new()),
        "acrobot" => Box::new(acrobot::AcrobotEnv::new()),
        "furuta" => Box::new(furuta::FurutaEnv::new()),
        "quadrotor2d" => Box::new(quadrotor2d::Quadrotor2dEnv::new()),
        "fork" => Box::new(fork::ForkEnv::new()),
        _ => match (name.strip_prefix("gym:"), task(name)) {
            (Some(id), _) => Box::new(gym::GymEnv::new(id)?),
            (None, Some(task)) => task?,
            (None, None) => {
                let suite = if cfg!(feature = "mujoco") { "" } else { "; the Control Suite takes --features mujoco" };
                return Err(Error::usage(format!(
                    "unknown environment {name:?}: use one of {}, or gym:ID for one of Gymnasium's{suite}",
                    known().join(", ")
                )));
            }
        },
    };
    let mut env = varied(plain);
    for (key, &value) in overrides {
        env.set(key, value)?;
    }
    Ok(env)
}

/// Owned names.
fn names(of: &[&str]) -> Vec<String> {
    of.iter().map(ToString::to_string).collect()
}

/// The parameters of a plant with owned names.
fn listed(params: &[(&'static str, f64)]) -> Vec<(String, f64)> {
    params.iter().map(|&(key, value)| (key.to_string(), value)).collect()
}

/// The sentence for a parameter that a plant refused.
fn refused(key: &str, value: f64) -> impl Fn(ParamError) -> Error {
    move |e| Error::usage(format!("env.{key}={value}: {e}"))
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

    #[test]
    fn specs_agree_with_themselves() {
        for name in known() {
            let env = make(name, &BTreeMap::new()).unwrap();
            let s = env.spec();
            assert_eq!(s.name, name);
            assert_eq!((s.obs_mean.len(), s.obs_scale.len()), (s.obs(), s.obs()));
            assert_eq!((s.low.len(), s.high.len()), (s.act(), s.act()));
            assert!(s.low.iter().zip(&s.high).all(|(l, h)| l < h));
            assert_eq!(s.time_limit % s.action_repeat, 0);
            assert!(s.obs_names.iter().chain(&s.act_names).all(|n| (1..=16).contains(&n.len())), "{name}");
            assert!(s.control_dt > 0.0 && s.reward_scale > 0.0 && s.obs_clip > 0.0);
        }
    }

    #[test]
    fn unknown_names_list_the_known() {
        for name in ["cartpole-swingdown", "Pendulum", ""] {
            let Err(Error::Usage(sentence)) = make(name, &BTreeMap::new()) else {
                panic!("{name} was accepted");
            };
            assert!(known().iter().all(|n| sentence.contains(n)), "{sentence}");
            assert_eq!(sentence.contains("--features mujoco"), !cfg!(feature = "mujoco"));
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
        assert!(env.params().contains(&("max_torque".to_string(), 3.5)));
    }
}
