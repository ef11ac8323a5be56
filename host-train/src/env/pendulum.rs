//! `pendulum`: Gymnasium's `Pendulum-v1`, 200 control steps of 0.05 s, no termination.
//!
//! The default reward scale divides by the largest cost of a step, `pi^2 + 0.1 * 8^2 + 0.001 * 2^2`, so that a
//! decision's training reward lies in [-1, 0].

use super::{Constants, Env, EnvSpec, Step, listed, names, refused, state_of};
use crate::Result;
use plants::Pendulum;
use rand_xoshiro::Xoshiro256PlusPlus;

/// The largest cost of a step with Gymnasium's constants.
const LARGEST_COST: f64 = 16.273_604_401_089_36;

pub(super) struct PendulumEnv {
    plant: Pendulum,
    spec: EnvSpec,
}

impl PendulumEnv {
    pub(super) fn new() -> Self {
        let mut env = Self {
            plant: Pendulum::new(),
            spec: EnvSpec {
                name: "pendulum".into(),
                summary: "torque-limited pendulum to swing up and hold (Gymnasium's Pendulum-v1)".into(),
                obs_names: names(&Pendulum::OBS_NAMES),
                act_names: names(&Pendulum::ACT_NAMES),
                low: vec![0.0],
                high: vec![0.0],
                control_dt: 0.0,
                action_repeat: 1,
                time_limit: 200,
                reward_scale: 1.0 / LARGEST_COST,
                obs_mean: vec![0.0; 3],
                obs_scale: vec![1.0, 1.0, 0.25],
                obs_clip: 10.0,
                obs_unknown: false,
                total_timesteps: 10_000,
                constants: Constants::Small,
            },
        };
        env.follow();
        env
    }

    /// Limits and period of the spec from the physical parameters.
    fn follow(&mut self) {
        let p = &self.plant.params;
        self.spec.low[0] = -p.max_torque as f32;
        self.spec.high[0] = p.max_torque as f32;
        self.spec.control_dt = p.dt;
    }
}

impl Env for PendulumEnv {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, rng: &mut Xoshiro256PlusPlus) -> Result<()> {
        self.plant.reset(rng);
        Ok(())
    }

    fn step(&mut self, action: &[f64]) -> Result<Step> {
        let reward = self.plant.step(action[0]);
        Ok(Step::on(reward))
    }

    fn observe(&self, out: &mut [f64]) {
        out.copy_from_slice(&self.plant.observe());
    }

    fn metric(&self, observation: &[f32]) -> Option<f32> {
        observation.try_into().ok().map(Pendulum::metric)
    }

    fn set(&mut self, key: &str, value: f64) -> Result<()> {
        self.plant.params.set(key, value).map_err(refused(key, value))?;
        self.follow();
        Ok(())
    }

    fn params(&self) -> Vec<(String, f64)> {
        listed(&self.plant.params.list())
    }

    fn set_state(&mut self, state: &[f64]) -> Result<()> {
        [self.plant.theta, self.plant.theta_dot] = state_of("pendulum", state)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::PI;

    #[test]
    fn the_scale_is_that_of_the_largest_cost() {
        let mut env = PendulumEnv::new();
        assert!((LARGEST_COST - (PI * PI + 6.4 + 0.004)).abs() < 1e-12);
        env.set_state(&[PI, 8.0]).unwrap();
        let scaled = env.step(&[2.0]).unwrap().reward * env.spec().reward_scale;
        assert!((scaled + 1.0).abs() < 1e-9, "{scaled}");
        assert!(env.set_state(&[0.0]).is_err());
    }
}
