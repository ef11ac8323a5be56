//! An environment seen decision by decision: the action is held, rewards are summed, the time limit is kept.
//!
//! Nothing that is not finite gets past here: a reward or an observation that is not is an error that names the channel
//! and the control step, whatever environment it came from. No panics; allocates nothing after it is made.

use super::{Env, EnvSpec};
use crate::{Error, Result};
use rand_xoshiro::Xoshiro256PlusPlus;

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
    observation: Vec<f32>,
}

impl Decision {
    /// Wraps an environment; `action_repeat` of 0 counts as 1. Call [`Decision::reset`] before the first step.
    pub fn new(env: Box<dyn Env>, action_repeat: usize) -> Self {
        let obs = env.spec().obs();
        Self {
            env,
            action_repeat: action_repeat.max(1),
            steps: 0,
            scratch: vec![0.0; obs],
            observation: vec![0.0; obs],
        }
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

    /// How well the task is done now, by the sensors; see [`Env::metric`].
    pub fn metric(&self) -> Option<f32> {
        self.env.metric(&self.observation)
    }

    /// Which of several ways the episode has taken ([`Env::way`]), or what ended it before its time ([`Env::fault`]).
    pub fn way(&self) -> Option<&'static str> {
        self.env.fault().or_else(|| self.env.way())
    }

    /// What went wrong where the environment ended the episode itself; see [`Env::fault`].
    pub fn fault(&self) -> Option<&'static str> {
        self.env.fault()
    }

    /// Control steps since the reset.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// The environment inside; whoever moves it must reset this before the next decision.
    pub fn inner_mut(&mut self) -> &mut dyn Env {
        &mut *self.env
    }

    /// Starts an episode.
    pub fn reset(&mut self, rng: &mut Xoshiro256PlusPlus) -> Result<()> {
        self.env.reset(rng)?;
        self.steps = 0;
        self.look()
    }

    /// Holds `action` (in the plant's units) until the next decision is due or the episode ends.
    pub fn step(&mut self, action: &[f64]) -> Result<Transition> {
        let limit = self.env.spec().time_limit;
        let mut t = Transition { reward: 0.0, control_steps: 0, terminated: false, truncated: false };
        while t.control_steps < self.action_repeat && !t.terminated && !t.truncated {
            let step = self.env.step(action)?;
            self.steps += 1;
            if !step.reward.is_finite() {
                return Err(self.not_finite("a reward", &step.reward.to_string()));
            }
            t.control_steps += 1;
            t.reward += step.reward;
            t.terminated = step.terminated;
            t.truncated = !step.terminated && (step.truncated || self.steps >= limit);
        }
        self.look()?;
        Ok(t)
    }

    /// The observation as a controller's sensors deliver it: rounded to `f32`.
    pub fn observe(&self, out: &mut [f32]) {
        out.copy_from_slice(&self.observation);
    }

    fn look(&mut self) -> Result<()> {
        self.env.observe(&mut self.scratch);
        for (slot, &value) in self.observation.iter_mut().zip(&self.scratch) {
            *slot = value as f32;
        }
        match self.observation.iter().position(|o| !o.is_finite()) {
            None => Ok(()),
            Some(at) => {
                let what = format!("{} = {}", self.env.spec().obs_names[at], self.scratch[at]);
                Err(self.not_finite("an observation", &what))
            }
        }
    }

    fn not_finite(&self, kind: &str, what: &str) -> Error {
        Error::failure(format!(
            "the environment {} returned {kind} that is not finite ({what}) at control step {} of an episode: use milder \
             env. parameters, or mend the environment",
            self.env.spec().name,
            self.steps
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Step, make};
    use super::*;
    use rand_xoshiro::rand_core::SeedableRng;
    use std::collections::BTreeMap;

    fn rng(seed: u64) -> Xoshiro256PlusPlus {
        Xoshiro256PlusPlus::seed_from_u64(seed)
    }

    /// A decision is the sum of its control steps, and an episode has exactly its time limit.
    #[test]
    fn decisions_sum_control_steps() {
        let mut one = Decision::new(make("cartpole", &BTreeMap::new()).unwrap(), 1);
        let mut four = Decision::new(make("cartpole", &BTreeMap::new()).unwrap(), 4);
        one.reset(&mut rng(5)).unwrap();
        four.reset(&mut rng(5)).unwrap();
        assert_eq!((four.decisions_per_episode(), one.decisions_per_episode()), (250, 1000));
        assert!((four.period() - 0.04).abs() < 1e-15);
        for decision in 0..250 {
            let action = [if decision % 7 < 3 { 0.8 } else { -0.6 }];
            let sum: f64 = (0..4).map(|_| one.step(&action).unwrap().reward).sum();
            let t = four.step(&action).unwrap();
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
        env.reset(&mut rng(1)).unwrap();
        assert_eq!(env.decisions_per_episode(), 67);
        for _ in 0..66 {
            assert_eq!(env.step(&[0.0]).unwrap().control_steps, 3);
        }
        let last = env.step(&[0.0]).unwrap();
        assert_eq!((last.control_steps, last.truncated), (2, true));
        env.reset(&mut rng(2)).unwrap();
        assert!(!env.step(&[0.0]).unwrap().truncated);
    }

    /// Returns what it is told to at its third control step.
    struct Broken {
        spec: EnvSpec,
        steps: usize,
        step: Step,
        observation: f64,
    }

    impl Env for Broken {
        fn spec(&self) -> &EnvSpec {
            &self.spec
        }
        fn reset(&mut self, _: &mut Xoshiro256PlusPlus) -> Result<()> {
            self.steps = 0;
            Ok(())
        }
        fn step(&mut self, _: &[f64]) -> Result<Step> {
            self.steps += 1;
            Ok(if self.steps == 3 { self.step } else { Step::on(1.0) })
        }
        fn observe(&self, out: &mut [f64]) {
            out.fill(0.5);
            if self.steps == 3 {
                out[1] = self.observation;
            }
        }
    }

    fn broken(step: Step, observation: f64) -> Decision {
        let spec = make("pendulum", &BTreeMap::new()).unwrap().spec().clone();
        let mut env = Decision::new(Box::new(Broken { spec, steps: 0, step, observation }), 2);
        env.reset(&mut rng(1)).unwrap();
        env.step(&[0.0]).unwrap();
        env
    }

    #[test]
    fn what_is_not_finite_is_named() {
        for (reward, observation, words) in [
            (f64::NAN, 0.0, ["pendulum", "a reward that is not finite (NaN)", "control step 3"]),
            (f64::NEG_INFINITY, 0.0, ["pendulum", "(-inf)", "control step 3"]),
        ] {
            let error = broken(Step::on(reward), observation).step(&[0.0]).unwrap_err();
            assert!(words.iter().all(|w| error.to_string().contains(w)) && error.exit_code() == 1, "{error}");
        }
        // Seen at the end of the decision; beyond `f32` is as bad as infinite.
        for observation in [f64::NAN, 1e300] {
            let mut env = broken(Step::on(0.0), observation);
            env.action_repeat = 1;
            let error = env.step(&[0.0]).unwrap_err().to_string();
            assert!(error.contains("an observation") && error.contains("sin_theta = "), "{error}");
        }
    }

    #[test]
    fn an_environment_may_end_its_episode() {
        let ends = Step { terminated: false, truncated: true, ..Step::on(2.0) };
        let t = broken(ends, 0.0).step(&[0.0]).unwrap();
        assert_eq!((t.reward, t.control_steps, t.terminated, t.truncated), (2.0, 1, false, true));
        let t = broken(Step { terminated: true, ..ends }, 0.0).step(&[0.0]).unwrap();
        assert_eq!((t.control_steps, t.terminated, t.truncated), (1, true, false));
    }
}
