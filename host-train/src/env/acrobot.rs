//! `acrobot`: the control suite's `acrobot` / `swingup`, 1000 control steps of 0.01 s, no termination.
//!
//! Random actions with the default repeat of 4 earn about 0.03 a step: the scale puts a decision's reward into [0, 1].

use super::{Constants, Env, EnvSpec, Step, listed, names, refused, state_of};
use crate::Result;
use plants::Acrobot;
use rand_xoshiro::Xoshiro256PlusPlus;

pub(super) struct AcrobotEnv {
    plant: Acrobot,
    spec: EnvSpec,
}

impl AcrobotEnv {
    pub(super) fn new() -> Self {
        let plant = Acrobot::new();
        Self {
            spec: EnvSpec {
                name: "acrobot".into(),
                summary:
                    "two links with a motor at the elbow to swing up and hold (the control suite's acrobot-swingup, \
                          in closed form)"
                        .into(),
                obs_names: names(&Acrobot::OBS_NAMES),
                act_names: names(&Acrobot::ACT_NAMES),
                low: vec![-1.0],
                high: vec![1.0],
                control_dt: plant.params().dt,
                action_repeat: 4,
                time_limit: 1_000,
                reward_scale: 0.25,
                obs_mean: vec![0.0; 6],
                obs_scale: vec![1.0, 1.0, 1.0, 1.0, 0.25, 0.125],
                obs_clip: 10.0,
                obs_unknown: false,
                total_timesteps: 400_000,
                constants: Constants::Small,
            },
            plant,
        }
    }
}

impl Env for AcrobotEnv {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, rng: &mut Xoshiro256PlusPlus) -> Result<()> {
        self.plant.reset(rng);
        Ok(())
    }

    fn step(&mut self, action: &[f64]) -> Result<Step> {
        Ok(Step::on(self.plant.step(action[0])))
    }

    fn observe(&self, out: &mut [f64]) {
        out.copy_from_slice(&self.plant.observe());
    }

    fn metric(&self, observation: &[f32]) -> Option<f32> {
        observation.try_into().ok().map(Acrobot::metric)
    }

    fn set(&mut self, key: &str, value: f64) -> Result<()> {
        self.plant.set(key, value).map_err(refused(key, value))?;
        self.spec.control_dt = self.plant.params().dt;
        Ok(())
    }

    fn params(&self) -> Vec<(String, f64)> {
        listed(&self.plant.params().list())
    }

    fn set_state(&mut self, state: &[f64]) -> Result<()> {
        let a = &mut self.plant;
        [a.shoulder, a.elbow, a.shoulder_dot, a.elbow_dot] = state_of("acrobot", state)?;
        Ok(())
    }
}
