//! `fork`: round a pillar to a goal, by either of two equally good ways; 80 control steps of 0.05 s, two to a
//! decision.
//!
//! The episode ends at the goal, with a return of about 100, or where the puck touches anything. Its label says which way
//! led to the goal.

use super::{Constants, Env, EnvSpec, Step, listed, names, refused};
use crate::Result;
use plants::{Fork, ForkState};
use rand_xoshiro::Xoshiro256PlusPlus;

pub(super) struct ForkEnv {
    plant: Fork,
    spec: EnvSpec,
}

impl ForkEnv {
    pub(super) fn new() -> Self {
        let plant = Fork::new();
        Self {
            spec: EnvSpec {
                name: "fork".into(),
                summary: "puck to steer round a pillar by either of two equally good ways; ends at the goal or a crash"
                    .into(),
                obs_names: names(&Fork::OBS_NAMES),
                act_names: names(&Fork::ACT_NAMES),
                low: vec![-1.0; 2],
                high: vec![1.0; 2],
                control_dt: plant.params().dt,
                action_repeat: 2,
                time_limit: 80,
                reward_scale: 0.1,
                obs_mean: vec![0.0; 4],
                obs_scale: vec![2.0, 2.0, 1.0, 1.0],
                obs_clip: 10.0,
                obs_unknown: false,
                total_timesteps: 40_000,
                constants: Constants::Small,
            },
            plant,
        }
    }
}

impl Env for ForkEnv {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, rng: &mut Xoshiro256PlusPlus) -> Result<()> {
        self.plant.reset(rng);
        Ok(())
    }

    fn step(&mut self, action: &[f64]) -> Result<Step> {
        let reward = self.plant.step(action[0], action[1]);
        Ok(Step { terminated: self.plant.state() != ForkState::Moving, ..Step::on(reward) })
    }

    fn observe(&self, out: &mut [f64]) {
        out.copy_from_slice(&self.plant.observe());
    }

    fn set(&mut self, key: &str, value: f64) -> Result<()> {
        self.plant.set(key, value).map_err(refused(key, value))?;
        self.spec.control_dt = self.plant.params().dt;
        Ok(())
    }

    fn params(&self) -> Vec<(String, f64)> {
        listed(&self.plant.params().list())
    }

    fn switches(&self) -> &'static [&'static str] {
        &["blocked"]
    }

    fn way(&self) -> Option<&'static str> {
        self.plant.way()
    }
}
