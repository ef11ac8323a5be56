//! `furuta`: a rotary pendulum with the constants of a Quanser QUBE-Servo 2, to be swung up and held; 3000 control steps
//! of 2 ms, five to a decision, no termination.
//!
//! The controller sees encoder counts and filtered differences, and the reward of a step lies in [0, 1].

use super::{Constants, Env, EnvSpec, Step, listed, names, refused, state_of};
use crate::Result;
use plants::Furuta;
use rand_xoshiro::Xoshiro256PlusPlus;

pub(super) struct FurutaEnv {
    plant: Furuta,
    spec: EnvSpec,
}

impl FurutaEnv {
    pub(super) fn new() -> Self {
        let mut env = Self {
            plant: Furuta::new(),
            spec: EnvSpec {
                name: "furuta".into(),
                summary:
                    "rotary pendulum on a motor-driven arm to swing up and hold (constants of a Quanser QUBE-Servo 2)"
                        .into(),
                obs_names: names(&Furuta::OBS_NAMES),
                act_names: names(&Furuta::ACT_NAMES),
                low: vec![0.0],
                high: vec![0.0],
                control_dt: 0.0,
                action_repeat: 5,
                time_limit: 3_000,
                reward_scale: 0.2,
                obs_mean: vec![0.0; 5],
                obs_scale: vec![1.0, 1.0, 1.0, 0.1, 0.1],
                obs_clip: 10.0,
                obs_unknown: false,
                total_timesteps: 300_000,
                constants: Constants::Small,
            },
        };
        env.follow();
        env
    }

    /// Limits and period of the spec from the physical parameters.
    fn follow(&mut self) {
        let p = self.plant.params();
        self.spec.low[0] = -p.max_voltage as f32;
        self.spec.high[0] = p.max_voltage as f32;
        self.spec.control_dt = p.dt;
    }
}

impl Env for FurutaEnv {
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
        observation.try_into().ok().map(Furuta::metric)
    }

    fn set(&mut self, key: &str, value: f64) -> Result<()> {
        self.plant.set(key, value).map_err(refused(key, value))?;
        self.follow();
        Ok(())
    }

    fn params(&self) -> Vec<(String, f64)> {
        listed(&self.plant.params().list())
    }

    fn set_state(&mut self, state: &[f64]) -> Result<()> {
        let [theta, alpha, theta_dot, alpha_dot] = state_of("furuta", state)?;
        self.plant.set_state(theta, alpha, theta_dot, alpha_dot);
        Ok(())
    }
}
