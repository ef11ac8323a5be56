//! `quadrotor2d`: a planar quadrotor that flies to the origin and hovers; 500 control steps of 0.01 s, two to a decision.
//!
//! Leaving the room or tipping over ends the episode. The reward of a step lies in [0, 1], so a crash costs what would
//! have been earned.

use super::{Constants, Env, EnvSpec, Step, listed, names, refused, state_of};
use crate::Result;
use plants::Quadrotor2d;
use rand_xoshiro::Xoshiro256PlusPlus;

pub(super) struct Quadrotor2dEnv {
    plant: Quadrotor2d,
    spec: EnvSpec,
}

impl Quadrotor2dEnv {
    pub(super) fn new() -> Self {
        let plant = Quadrotor2d::new();
        Self {
            spec: EnvSpec {
                name: "quadrotor2d".into(),
                summary: "planar quadrotor to fly to the origin and hover; ends where it crashes".into(),
                obs_names: names(&Quadrotor2d::OBS_NAMES),
                act_names: names(&Quadrotor2d::ACT_NAMES),
                low: vec![-1.0; 2],
                high: vec![1.0; 2],
                control_dt: plant.params.dt,
                action_repeat: 2,
                time_limit: 500,
                reward_scale: 0.5,
                obs_mean: vec![0.0; 7],
                obs_scale: vec![1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.2],
                obs_clip: 10.0,
                obs_unknown: false,
                total_timesteps: 150_000,
                constants: Constants::Small,
            },
            plant,
        }
    }
}

impl Env for Quadrotor2dEnv {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, rng: &mut Xoshiro256PlusPlus) -> Result<()> {
        self.plant.reset(rng);
        Ok(())
    }

    fn step(&mut self, action: &[f64]) -> Result<Step> {
        let reward = self.plant.step(action[0], action[1]);
        Ok(Step { terminated: self.plant.crashed(), ..Step::on(reward) })
    }

    fn observe(&self, out: &mut [f64]) {
        out.copy_from_slice(&self.plant.observe());
    }

    fn metric(&self, observation: &[f32]) -> Option<f32> {
        observation.try_into().ok().map(Quadrotor2d::metric)
    }

    fn set(&mut self, key: &str, value: f64) -> Result<()> {
        self.plant.params.set(key, value).map_err(refused(key, value))?;
        self.spec.control_dt = self.plant.params.dt;
        Ok(())
    }

    fn params(&self) -> Vec<(String, f64)> {
        listed(&self.plant.params.list())
    }

    fn set_state(&mut self, state: &[f64]) -> Result<()> {
        let q = &mut self.plant;
        [q.x, q.z, q.phi, q.x_dot, q.z_dot, q.phi_dot] = state_of("quadrotor2d", state)?;
        Ok(())
    }
}
