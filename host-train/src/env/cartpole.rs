//! `cartpole`: the DeepMind Control Suite's cartpole-swingup, 1000 control steps of 0.01 s, no termination.
//!
//! The reward of a control step lies in [0, 1]; a decision lasts four of them by default, and the default reward scale
//! of 1/4 brings its sum back to [0, 1]. The end of the rail is the suite's own soft limit.

use super::{Constants, Env, EnvSpec, Step, listed, names, refused, state_of};
use crate::Result;
use plants::Cartpole;
use rand_xoshiro::Xoshiro256PlusPlus;

pub(super) struct CartpoleEnv {
    plant: Cartpole,
    spec: EnvSpec,
}

impl CartpoleEnv {
    pub(super) fn new() -> Self {
        let plant = Cartpole::new();
        Self {
            spec: EnvSpec {
                name: "cartpole".into(),
                summary: "pole on a cart to swing up and hold (the control suite's cartpole-swingup, in closed form)"
                    .into(),
                obs_names: names(&Cartpole::OBS_NAMES),
                act_names: names(&Cartpole::ACT_NAMES),
                low: vec![-1.0],
                high: vec![1.0],
                control_dt: plant.params().dt,
                action_repeat: 4,
                time_limit: 1000,
                reward_scale: 0.25,
                obs_mean: vec![0.0; 5],
                obs_scale: vec![1.0, 1.0, 1.0, 0.5, 0.25],
                obs_clip: 10.0,
                obs_unknown: false,
                total_timesteps: 240_000,
                constants: Constants::Small,
            },
            plant,
        }
    }
}

impl Env for CartpoleEnv {
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
        observation.try_into().ok().map(Cartpole::metric)
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
        let c = &mut self.plant;
        [c.x, c.theta, c.x_dot, c.theta_dot] = state_of("cartpole", state)?;
        Ok(())
    }
    fn within_limits(&self) -> bool {
        self.plant.inside()
    }
}
