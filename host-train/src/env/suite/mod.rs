//! The DeepMind Control Suite natively: 24 tasks through MuJoCo's own library, with `--features mujoco`.
//!
//! A task is a small file: an [`Entry`] with its model and the widths of its observation, and a [`Task`] of start,
//! observation and reward. What is the same for all is here: reset, control step, limits, changed physics, records.
//! Rollouts are those of `dm_control` 1.0.50 with MuJoCo 3.17.0 (`tests/suite.rs` replays its records); start states have
//! the same distributions, drawn from our generator.
//!
//! An episode is 1000 control steps and ends before only where MuJoCo warns that its physics have diverged: that step is
//! worth nothing, ends the episode for good, and [`Env::fault`] names why. Each task has the parameters of [`FACTORS`] that
//! matter to it. A step allocates nothing and does not panic.

mod acrobot;
mod ball_in_cup;
mod cartpole;
mod cheetah;
mod dog;
mod files;
mod finger;
mod fish;
mod hopper;
mod humanoid;
mod pendulum;
mod physics;
mod pinned;
mod quadruped;
mod reacher;
mod tolerance;
mod walker;

use super::{Env, EnvSpec, State, Step};
use crate::{Error, Result};
use mujoco_rs::mujoco_c::mjtDisableBit;
use mujoco_rs::prelude::{MjModel, MjtObjBase};
use physics::Physics;
use rand_xoshiro::Xoshiro256PlusPlus;
use std::collections::BTreeSet;

/// Control steps of an episode.
const EPISODE: usize = 1000;

/// Every domain's tasks.
const DOMAINS: [&[Entry]; 13] = [
    &cheetah::TASKS,
    &walker::TASKS,
    &hopper::TASKS,
    &cartpole::TASKS,
    &pendulum::TASKS,
    &acrobot::TASKS,
    &reacher::TASKS,
    &finger::TASKS,
    &ball_in_cup::TASKS,
    &quadruped::TASKS,
    &humanoid::TASKS,
    &dog::TASKS,
    &fish::TASKS,
];

/// Parameters of every task, each a factor on what its model says: of gravity, of all masses and inertias, of the joints'
/// damping, of sliding friction, of the actuators' forces.
const FACTORS: [&str; 5] = ["gravity", "mass", "damping", "friction", "strength"];
const LARGEST_FACTOR: f64 = 1e6;

/// A task as its domain's file tells it.
struct Entry {
    /// The name on the command line.
    name: &'static str,
    summary: &'static str,
    /// Reads the model, with this task's edits.
    model: files::Read,
    /// Physics steps of a control step.
    substeps: usize,
    /// The parts of the observation in their order, with their widths.
    channels: &'static [(&'static str, usize)],
    /// Looks the parts up that the task needs; the physics are in the default pose.
    make: fn(&Physics) -> Result<Box<dyn Task>>,
}

/// What makes a task of a model.
trait Task: Send {
    /// Draws a start from the default pose; what is derived from it is computed afterwards.
    fn start(&mut self, physics: &mut Physics, rng: &mut Xoshiro256PlusPlus) -> Result<()>;
    /// Writes the observation.
    fn observe(&self, physics: &Physics, out: &mut Out);
    /// The reward of the present state, in [0, 1].
    fn reward(&self, physics: &Physics) -> f64;
}

/// Where an observation is written, channel by channel; what is too much is dropped.
struct Out<'a> {
    slots: &'a mut [f64],
    used: usize,
}

impl Out<'_> {
    fn one(&mut self, x: f64) {
        if let Some(slot) = self.slots.get_mut(self.used) {
            *slot = x;
        }
        self.used += 1;
    }

    fn all(&mut self, xs: &[f64]) {
        if let Some(slots) = self.slots.get_mut(self.used..self.used + xs.len()) {
            slots.copy_from_slice(xs);
        }
        self.used += xs.len();
    }

    fn some(&mut self, xs: &[f64], places: &[usize]) {
        places.iter().for_each(|&place| self.one(xs[place]));
    }
}

/// Model and state, as MuJoCo draws them.
#[cfg(feature = "render")]
pub type Scene = mujoco_rs::prelude::MjData<Box<MjModel>>;

/// The names of all tasks.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    DOMAINS.into_iter().flatten().map(|entry| entry.name)
}

/// A task of the suite as an environment.
pub(super) struct SuiteEnv {
    spec: EnvSpec,
    entry: &'static Entry,
    /// The model without changed parameters.
    nominal: Box<MjModel>,
    /// In the order of [`FACTORS`].
    factors: [f64; FACTORS.len()],
    /// Exact limits of the actions; those of the spec are rounded.
    limits: Vec<[f64; 2]>,
    action: Vec<f64>,
    physics: Physics,
    task: Box<dyn Task>,
    fault: Option<&'static str>,
}

impl SuiteEnv {
    /// The task of a name; none where there is no such task.
    pub(super) fn new(name: &str) -> Option<Result<Self>> {
        let entry = DOMAINS.into_iter().flatten().find(|entry| entry.name == name)?;
        Some(Self::of(entry))
    }

    fn of(entry: &'static Entry) -> Result<Self> {
        let nominal = files::model(entry.name, entry.model)?;
        let mut physics = Physics::new(nominal.clone(), entry.substeps)?;
        physics.settle();
        let task = (entry.make)(&physics)?;
        let limits = nominal.actuator_ctrlrange().to_vec();
        let obs_names = channels(entry);
        let obs = obs_names.len();
        Ok(Self {
            spec: EnvSpec {
                name: entry.name.into(),
                summary: format!("{} (DeepMind Control Suite)", entry.summary),
                obs_names,
                act_names: actuators(&nominal),
                low: limits.iter().map(|limit| limit[0] as f32).collect(),
                high: limits.iter().map(|limit| limit[1] as f32).collect(),
                control_dt: physics.control_dt(),
                action_repeat: 1,
                time_limit: EPISODE,
                reward_scale: 1.0,
                obs_mean: vec![0.0; obs],
                obs_scale: vec![1.0; obs],
                obs_clip: 10.0,
                obs_unknown: true,
                total_timesteps: 250_000,
            },
            entry,
            nominal,
            factors: [1.0; FACTORS.len()],
            action: vec![0.0; limits.len()],
            limits,
            physics,
            task,
            fault: None,
        })
    }

    /// Which parameters change anything.
    fn matters(&self, factor: &str) -> bool {
        let off = |bit: mjtDisableBit| self.nominal.opt().disableflags & bit as i32 != 0;
        match factor {
            "gravity" => !off(mjtDisableBit::mjDSBL_GRAVITY),
            "friction" => !off(mjtDisableBit::mjDSBL_CONTACT) && !off(mjtDisableBit::mjDSBL_CONSTRAINT),
            _ => true,
        }
    }

    /// The nominal model with the present factors.
    fn changed(&self) -> Box<MjModel> {
        let mut model = self.nominal.clone();
        let [gravity, mass, damping, friction, strength] = self.factors;
        model.opt_mut().gravity.iter_mut().for_each(|g| *g *= gravity);
        model.body_mass_mut().iter_mut().for_each(|m| *m *= mass);
        model.body_inertia_mut().iter_mut().flatten().for_each(|i| *i *= mass);
        model.dof_damping_mut().iter_mut().for_each(|d| *d *= damping);
        model.geom_friction_mut().iter_mut().for_each(|f| f[0] *= friction);
        physics::strengthen(&mut model, strength);
        model
    }
}

impl Env for SuiteEnv {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, rng: &mut Xoshiro256PlusPlus) -> Result<()> {
        self.fault = None;
        self.physics.reset();
        self.physics.settle();
        self.task.start(&mut self.physics, rng).map_err(|e| Error::failure(format!("{}: {e}", self.entry.name)))?;
        self.physics.settle();
        Ok(())
    }

    fn step(&mut self, action: &[f64]) -> Result<Step> {
        if self.fault.is_none() {
            for ((held, wanted), [low, high]) in self.action.iter_mut().zip(action).zip(&self.limits) {
                *held = wanted.max(*low).min(*high);
            }
            self.physics.step(&self.action);
            self.fault = self.physics.trouble();
            if self.fault.is_none() {
                return Ok(Step::on(self.task.reward(&self.physics)));
            }
            // Whatever is left of the state, the last observation is one of numbers: of the default pose.
            self.physics.reset();
            self.physics.settle();
        }
        Ok(Step { reward: 0.0, terminated: true, truncated: false })
    }

    fn observe(&self, out: &mut [f64]) {
        self.task.observe(&self.physics, &mut Out { slots: out, used: 0 });
    }

    fn set(&mut self, key: &str, value: f64) -> Result<()> {
        let lowest = if key == "mass" { 1e-3 } else { 0.0 };
        if !(lowest..=LARGEST_FACTOR).contains(&value) {
            return Err(Error::usage(format!(
                "env.{key}={value}: it is a factor on the model's own, from {lowest} to {LARGEST_FACTOR}"
            )));
        }
        let place = FACTORS.iter().position(|known| *known == key).filter(|_| self.matters(key));
        let Some(place) = place else {
            return Err(Error::usage(format!("env.{key}: {} has no such parameter", self.spec.name)));
        };
        let masses = FACTORS[place] == "mass" || self.factors[1] != 1.0;
        self.factors[place] = value;
        self.physics.replace(self.changed(), masses)?;
        self.physics.reset();
        self.physics.settle();
        self.task = (self.entry.make)(&self.physics)?;
        Ok(())
    }

    fn params(&self) -> Vec<(String, f64)> {
        let all = FACTORS.iter().zip(self.factors);
        all.filter(|(key, _)| self.matters(key)).map(|(key, factor)| (key.to_string(), factor)).collect()
    }

    fn fault(&self) -> Option<&'static str> {
        self.fault
    }

    fn place(&mut self, state: &State) -> Result<()> {
        let unfit = |what: &str, theirs: usize, ours: usize| {
            Error::usage(format!("a record of {} has {ours} {what} and not {theirs}: record it again", self.spec.name))
        };
        let model = self.physics.model();
        let sizes = [
            ("positions", state.positions.len(), model.nq() as usize),
            ("speeds", state.speeds.len(), model.nv() as usize),
            ("activations", state.activations.len(), model.na() as usize),
            ("controls", state.controls.as_ref().map_or(self.action.len(), Vec::len), self.action.len()),
            ("accelerations", state.warmstart.as_ref().map_or(model.nv() as usize, Vec::len), model.nv() as usize),
        ];
        if let Some((what, theirs, ours)) = sizes.into_iter().find(|(_, theirs, ours)| theirs != ours) {
            return Err(unfit(what, theirs, ours));
        }
        self.fault = None;
        self.physics.reset();
        for (entry, values) in &state.model {
            self.physics.overwrite(entry, values)?;
        }
        let data = self.physics.data_mut();
        data.set_time(state.time);
        data.qpos_mut().copy_from_slice(&state.positions);
        data.qvel_mut().copy_from_slice(&state.speeds);
        data.act_mut().copy_from_slice(&state.activations);
        if let Some(warmstart) = &state.warmstart {
            data.qacc_warmstart_mut().copy_from_slice(warmstart);
        }
        match &state.controls {
            Some(controls) => {
                data.ctrl_mut().copy_from_slice(controls);
                self.physics.forward();
            }
            None => self.physics.settle(),
        }
        if let Some(warmstart) = &state.warmstart {
            self.physics.data_mut().qacc_warmstart_mut().copy_from_slice(warmstart);
        }
        Ok(())
    }

    fn state(&self) -> Option<State> {
        let data = self.physics.data();
        Some(State {
            positions: data.qpos().to_vec(),
            speeds: data.qvel().to_vec(),
            activations: data.act().to_vec(),
            ..State::default()
        })
    }

    fn reward(&self) -> Option<f64> {
        Some(self.task.reward(&self.physics))
    }

    #[cfg(feature = "render")]
    fn scene(&mut self) -> Option<&mut Scene> {
        Some(self.physics.data_mut())
    }
}

/// Names of the observation's channels.
fn channels(entry: &Entry) -> Vec<String> {
    let parts = entry.channels.iter();
    parts
        .flat_map(|&(part, width)| {
            (0..width).map(move |i| if width == 1 { part.to_string() } else { format!("{part}_{i}") })
        })
        .collect()
}

/// Names of the actuators, or numbers where the names are too long for an artefact.
fn actuators(model: &MjModel) -> Vec<String> {
    let own: Vec<String> = (0..model.nu() as usize)
        .map(|i| model.id_to_name(MjtObjBase::mjOBJ_ACTUATOR, i).unwrap_or_default().to_string())
        .collect();
    let fit = own.iter().all(|name| (1..=16).contains(&name.len()) && name.is_ascii());
    if fit && own.iter().collect::<BTreeSet<_>>().len() == own.len() {
        return own;
    }
    (0..own.len()).map(|i| format!("act_{i}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_xoshiro::rand_core::SeedableRng;

    /// Each part of an observation has its width: nothing is left over or missing, before and after a step.
    #[test]
    fn every_channel_is_written_once() {
        let all: Vec<&str> = names().collect();
        assert_eq!((all.len(), all.iter().collect::<BTreeSet<_>>().len()), (24, 24));
        for name in all {
            let mut env = SuiteEnv::new(name).unwrap().unwrap();
            env.reset(&mut Xoshiro256PlusPlus::seed_from_u64(1)).unwrap();
            let mut slots = vec![f64::NAN; env.spec.obs()];
            let mut out = Out { slots: &mut slots, used: 0 };
            env.task.observe(&env.physics, &mut out);
            assert_eq!(out.used, env.spec.obs(), "{name}");
            assert!(slots.iter().all(|x| x.is_finite()), "{name}");
            assert_eq!(env.spec.obs_names.iter().collect::<BTreeSet<_>>().len(), env.spec.obs(), "{name}");
            // The reset leaves nothing of the episode before.
            assert_eq!(env.physics.data().time(), 0.0, "{name}");
        }
        assert!(SuiteEnv::new("cheetah").is_none());
    }

    #[test]
    fn what_is_too_much_is_dropped() {
        let mut slots = [0.0; 3];
        let mut out = Out { slots: &mut slots, used: 0 };
        out.all(&[1.0, 2.0]);
        out.all(&[3.0, 4.0]);
        out.one(5.0);
        assert_eq!((out.used, slots), (5, [1.0, 2.0, 0.0]));
    }
}
