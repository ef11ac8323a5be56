//! The training loop: environments, replay buffer, agent, and an observer around them.
//!
//! `num_envs` environments take turns; after every `block` decisions the agent makes `updates_per_decision` updates for
//! each of them. The first `learning_starts` decisions are uniformly random and buy no updates. A time limit is a
//! truncation: the episode is reset, and its last transition bootstraps. `total_timesteps` counts control steps; the
//! last decision may overshoot it by less than its repeat. After each block the [`Observer`] sees where training
//! stands and may end it, so progress bars, evaluations, logs and Ctrl-C all live outside.
//!
//! Everything random comes from numbered streams of the seed: the same configuration on the same machine gives the same
//! agent, bit for bit, whatever the observer does. Fails with a sentence where training diverges. Single-threaded.

use crate::agent::rfm::{Rfm, UpdateStats};
use crate::config::Config;
use crate::env::Decision;
use crate::noise::Noise;
use crate::replay::{Replay, Transition};
use crate::{Error, Result};
use cpu_time::ProcessTime;
use std::ops::ControlFlow;

/// Streams of the seed, apart from the agent's own: exploration, and one per environment from here on.
const STREAM_EXPLORATION: u64 = 100;
const STREAM_ENVIRONMENTS: u64 = 1_000;

/// A finished episode of training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Episode {
    /// Control steps taken in all environments when it ended.
    pub at: u64,
    /// Sum of its unscaled rewards.
    pub episode_return: f64,
    /// Its length, control steps.
    pub length: u64,
}

/// Where training stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// Control steps taken, over all environments.
    pub steps: u64,
    /// Control steps to take.
    pub total: u64,
    /// Decisions taken.
    pub decisions: u64,
    /// Updates made.
    pub updates: u64,
    /// CPU seconds of this process since the trainer was made, the observer's included.
    pub cpu_seconds: f64,
    /// Posterior means that the estimator refused, over all updates: the policy's own sample took their place.
    pub refused: u64,
    /// What the last update reported; zeros before the first.
    pub last: UpdateStats,
}

/// Looks on while training runs, between blocks.
pub trait Observer {
    /// Called after every block, with the episodes that ended in it. `Break` ends training with the work so far kept.
    ///
    /// The agent may be asked for actions with noise of the observer's own; that does not disturb training.
    fn block(&mut self, progress: &Progress, episodes: &[Episode], agent: &mut Rfm) -> ControlFlow<()>;
}

/// Nobody looks on.
impl Observer for () {
    fn block(&mut self, _: &Progress, _: &[Episode], _: &mut Rfm) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// Maps between the plant's units and the networks': observations in, actions out.
#[derive(Clone, Debug)]
pub struct Units {
    mean: Vec<f32>,
    scale: Vec<f32>,
    clip: f32,
    low: Vec<f32>,
    high: Vec<f32>,
}

impl Units {
    /// The normaliser of `config` and the action limits of `env`.
    pub fn new(config: &Config, env: &Decision) -> Self {
        let spec = env.spec();
        Self {
            mean: config.env.obs_mean.clone(),
            scale: config.env.obs_scale.clone(),
            clip: config.env.obs_clip,
            low: spec.low.clone(),
            high: spec.high.clone(),
        }
    }

    /// Normalises an observation in place: clamp((o - mean) scale, -clip, clip).
    pub fn normalise(&self, obs: &mut [f32]) {
        for ((o, mean), scale) in obs.iter_mut().zip(&self.mean).zip(&self.scale) {
            *o = ((*o - mean) * scale).clamp(-self.clip, self.clip);
        }
    }

    /// The plant's action for a squashed one: low + (a + 1) / 2 (high - low).
    pub fn plant_action(&self, squashed: &[f32], out: &mut [f64]) {
        for (((out, a), low), high) in out.iter_mut().zip(squashed).zip(&self.low).zip(&self.high) {
            *out = f64::from(low + (a + 1.0) * 0.5 * (high - low));
        }
    }
}

/// One environment with the episode it is in.
struct Lane {
    env: Decision,
    noise: Noise,
    episode_return: f64,
    length: u64,
}

/// Everything that training moves.
pub struct Trainer {
    config: Config,
    agent: Rfm,
    replay: Replay,
    units: Units,
    lanes: Vec<Lane>,
    exploration: Noise,
    /// Normalised observations of all lanes, side by side, and the actions for them.
    obs: Vec<f32>,
    next_obs: Vec<f32>,
    actions: Vec<f32>,
    plant_action: Vec<f64>,
    episodes: Vec<Episode>,
    progress: Progress,
    /// Updates that the decisions so far have bought and that were not made yet.
    owed: f64,
    started: ProcessTime,
}

impl Trainer {
    /// Environments reset, networks fresh.
    pub fn new(config: &Config) -> Result<Self> {
        let started = ProcessTime::now();
        let rfm = &config.rfm;
        let mut lanes = Vec::with_capacity(rfm.num_envs);
        for i in 0..rfm.num_envs {
            let env = Decision::new(config.make_env()?, config.env.action_repeat);
            let noise = Noise::new(config.seed, STREAM_ENVIRONMENTS + i as u64);
            lanes.push(Lane { env, noise, episode_return: 0.0, length: 0 });
        }
        let Some(first) = lanes.first() else {
            return Err(Error::usage("rfm.num_envs is 0: training needs at least one environment"));
        };
        let (obs, act) = (first.env.spec().obs(), first.env.spec().act());
        let units = Units::new(config, &first.env);
        // A buffer beyond the decisions of the whole run would only be memory.
        let decisions = config.total_timesteps / config.env.action_repeat.max(1) as u64 + rfm.num_envs as u64 + 1;
        let capacity = rfm.buffer_size.min(usize::try_from(decisions).unwrap_or(usize::MAX));
        let mut trainer = Self {
            config: config.clone(),
            agent: Rfm::new(rfm, obs, act, config.seed),
            replay: Replay::new(capacity, obs, act),
            units,
            exploration: Noise::new(config.seed, STREAM_EXPLORATION),
            obs: vec![0.0; rfm.num_envs * obs],
            next_obs: vec![0.0; obs],
            actions: vec![0.0; rfm.num_envs * act],
            plant_action: vec![0.0; act],
            lanes,
            episodes: Vec::new(),
            progress: Progress {
                steps: 0,
                total: config.total_timesteps,
                decisions: 0,
                updates: 0,
                cpu_seconds: 0.0,
                refused: 0,
                last: UpdateStats::default(),
            },
            owed: 0.0,
            started,
        };
        for (lane, obs) in trainer.lanes.iter_mut().zip(trainer.obs.chunks_exact_mut(obs)) {
            lane.env.reset(lane.noise.rng())?;
            lane.env.observe(obs);
            trainer.units.normalise(obs);
        }
        Ok(trainer)
    }

    /// Trains until the steps are used up or the observer breaks off. Returns whether it ran to its end.
    pub fn run(&mut self, observer: &mut dyn Observer) -> Result<bool> {
        while self.progress.steps < self.progress.total {
            let known = self.episodes.len();
            self.decide()?;
            self.learn()?;
            self.progress.cpu_seconds = self.started.elapsed().as_secs_f64();
            let flow = observer.block(&self.progress, &self.episodes[known..], &mut self.agent);
            if flow.is_break() {
                return Ok(self.progress.steps >= self.progress.total);
            }
        }
        Ok(true)
    }

    /// One block of decisions.
    fn decide(&mut self) -> Result<()> {
        let lanes = self.lanes.len();
        for _ in 0..self.config.rfm.block.div_ceil(lanes) {
            let random = self.progress.decisions < self.config.rfm.learning_starts;
            if random {
                self.exploration.uniform_in(&mut self.actions, -1.0, 1.0);
            } else {
                self.agent.act(&self.obs, &mut self.actions);
            }
            for lane in 0..lanes {
                if self.progress.steps >= self.progress.total {
                    return Ok(());
                }
                self.step(lane)?;
                if !random {
                    self.owed += self.config.rfm.updates_per_decision;
                }
            }
        }
        Ok(())
    }

    /// One decision of one lane: act, store, and start anew where the episode ended.
    fn step(&mut self, index: usize) -> Result<()> {
        let lane = &mut self.lanes[index];
        let (obs, act) = (self.next_obs.len(), self.plant_action.len());
        let before = &mut self.obs[index * obs..(index + 1) * obs];
        let action = &self.actions[index * act..(index + 1) * act];
        self.units.plant_action(action, &mut self.plant_action);
        let outcome = lane.env.step(&self.plant_action)?;
        lane.env.observe(&mut self.next_obs);
        self.units.normalise(&mut self.next_obs);
        self.replay.push(Transition {
            obs: before,
            action,
            reward: (outcome.reward * self.config.env.reward_scale) as f32,
            next_obs: &self.next_obs,
            terminated: outcome.terminated,
        });
        self.progress.decisions += 1;
        self.progress.steps += outcome.control_steps as u64;
        lane.episode_return += outcome.reward;
        lane.length += outcome.control_steps as u64;
        if outcome.terminated || outcome.truncated {
            let (episode_return, length) = (lane.episode_return, lane.length);
            self.episodes.push(Episode { at: self.progress.steps, episode_return, length });
            (lane.episode_return, lane.length) = (0.0, 0);
            lane.env.reset(lane.noise.rng())?;
            lane.env.observe(before);
            self.units.normalise(before);
        } else {
            before.copy_from_slice(&self.next_obs);
        }
        Ok(())
    }

    /// The updates that are due.
    fn learn(&mut self) -> Result<()> {
        while self.owed >= 1.0 {
            self.owed -= 1.0;
            self.progress.last = self.agent.update(&self.replay);
            self.progress.updates += 1;
            self.progress.refused += self.progress.last.refused as u64;
            let last = &self.progress.last;
            if !(last.critic_loss.is_finite() && last.actor_loss.is_finite()) {
                return Err(Error::failure(format!(
                    "training diverged at control step {} (a loss is not finite), the last evaluated policy is kept: \
                     lower rfm.q_lr, rfm.policy_lr or env.reward_scale",
                    self.progress.steps
                )));
            }
        }
        Ok(())
    }

    /// The agent.
    pub fn agent(&self) -> &Rfm {
        &self.agent
    }

    /// Every finished episode, in order.
    pub fn episodes(&self) -> &[Episode] {
        &self.episodes
    }

    /// Where training stands.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn config(set: &[&str]) -> Config {
        let set: Vec<String> = set.iter().map(ToString::to_string).collect();
        Config::resolve(&Sources { env: Some("pendulum"), seed: Some(3), set: &set, ..Sources::default() }).unwrap()
    }

    /// Small networks, for tests of the loop and not of learning.
    const SMALL: [&str; 5] = [
        "rfm.actor_hidden=8",
        "rfm.critic_hidden=8",
        "rfm.batch_size=16",
        "rfm.actor_batch=16",
        "rfm.learning_starts=200",
    ];

    #[derive(Default)]
    struct Count {
        blocks: Vec<(u64, u64)>,
        episodes: usize,
        stop_at: Option<u64>,
        evaluate: bool,
    }

    impl Observer for Count {
        fn block(&mut self, progress: &Progress, episodes: &[Episode], agent: &mut Rfm) -> ControlFlow<()> {
            self.blocks.push((progress.decisions, progress.updates));
            self.episodes += episodes.len();
            if self.evaluate {
                agent.act_best_of(&[0.0; 9], 4, &mut Noise::new(1, 1), &mut [0.0; 3]);
            }
            match self.stop_at {
                Some(at) if progress.steps >= at => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }

    fn set<'a>(more: &[&'a str]) -> Vec<&'a str> {
        SMALL.into_iter().chain(more.iter().copied()).collect()
    }

    #[test]
    fn decisions_updates_and_episodes_add_up() {
        let mut trainer = Trainer::new(&config(&set(&["total_timesteps=1610"]))).unwrap();
        let mut count = Count::default();
        assert!(trainer.run(&mut count).unwrap());
        // 200 random decisions end within a block of 16, the rest buy one update each.
        assert_eq!(count.blocks[0], (16, 0));
        assert_eq!(count.blocks[11], (192, 0));
        assert_eq!(count.blocks[12], (208, 8));
        assert_eq!(count.blocks[13], (224, 24));
        assert_eq!(*count.blocks.last().unwrap(), (1610, 1410));
        // Four environments of 200 steps: two whole rounds of episodes in 1610 steps.
        assert_eq!((count.episodes, trainer.episodes().len()), (8, 8));
        assert_eq!(trainer.episodes()[0].at, 797);
        assert!(trainer.episodes().iter().all(|e| e.length == 200 && e.episode_return < -100.0));
        assert_eq!(trainer.replay.len(), 1610);
        assert_eq!(trainer.progress().steps, 1610);
    }

    #[test]
    fn time_limits_bootstrap_and_rewards_are_scaled() {
        let mut trainer = Trainer::new(&config(&set(&["total_timesteps=1000", "env.reward_scale=0.5"]))).unwrap();
        trainer.run(&mut ()).unwrap();
        let mut batch = crate::replay::Minibatch::new(3000, 3, 1);
        trainer.replay.sample(&mut batch, &mut Noise::new(1, 0));
        assert!(batch.mask.iter().all(|&m| m == 1.0), "a time limit was taken for the end");
        // Pendulum's reward lies in [-16.2736044, 0].
        assert!(batch.reward.iter().all(|r| (-8.14..=0.0).contains(r)));
        assert!(batch.reward.iter().any(|&r| r < -2.0));
        // Observations are normalised: the angular velocity, up to 8, is scaled by 1/4.
        assert!(batch.obs.chunks(3).all(|o| o[2].abs() <= 2.0 && (o[0].hypot(o[1]) - 1.0).abs() < 1e-5));
    }

    #[test]
    fn an_action_repeat_counts_control_steps() {
        let mut trainer = Trainer::new(&config(&set(&["total_timesteps=1201", "env.action_repeat=3"]))).unwrap();
        trainer.run(&mut ()).unwrap();
        let p = trainer.progress();
        assert!((1201..1204).contains(&p.steps), "{p:?}");
        // 67 decisions in an episode: 66 of three steps, one of two.
        assert!(trainer.episodes().iter().all(|e| e.length == 200));
        assert!(p.decisions * 3 >= p.steps && p.decisions * 3 < p.steps + 15);
    }

    #[test]
    fn observers_can_stop_and_never_disturb() {
        let run = |count: &mut Count, seed: u64| {
            let config = Config { seed, ..config(&set(&["total_timesteps=600"])) };
            let mut trainer = Trainer::new(&config).unwrap();
            let whole = trainer.run(count).unwrap();
            (whole, trainer.progress().steps, trainer.agent().digest())
        };
        let plain = run(&mut Count::default(), 3);
        assert_eq!(plain, run(&mut Count { evaluate: true, ..Count::default() }, 3));
        assert_ne!(plain.2, run(&mut Count::default(), 4).2);
        let stopped = run(&mut Count { stop_at: Some(300), ..Count::default() }, 3);
        assert_eq!((stopped.0, stopped.1), (false, 304));
    }

    #[test]
    fn divergence_is_a_sentence() {
        let config = config(&set(&["total_timesteps=2000", "env.reward_scale=1e30"]));
        let error = Trainer::new(&config).unwrap().run(&mut ()).unwrap_err();
        assert!(error.to_string().contains("diverged") && error.exit_code() == 1, "{error}");
    }

    /// The default run solves the pendulum; ten seeds of it are in the long tests.
    #[test]
    fn the_pendulum_is_learned() {
        let mut trainer = Trainer::new(&config(&["total_timesteps=6000"])).unwrap();
        trainer.run(&mut ()).unwrap();
        let returns: Vec<f64> = trainer.episodes().iter().map(|e| e.episode_return).collect();
        let mean = |r: &[f64]| r.iter().sum::<f64>() / r.len() as f64;
        let (first, last) = (mean(&returns[..4]), mean(&returns[returns.len() - 8..]));
        assert!(first < -800.0 && last > -300.0, "training returns went from {first} to {last}");
    }
}
