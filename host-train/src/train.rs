//! The training loop: environments, replay buffer, agent, and an observer around them.
//!
//! `num_envs` environments take turns; after every `block` decisions the agent makes `updates_per_decision` updates for
//! each of them. The first `learning_starts` decisions are uniformly random and buy no updates. A time limit is a
//! truncation: the episode is reset, and its last transition bootstraps. `total_timesteps` counts control steps; the
//! last block is finished, so a run that is continued later is the run that was never stopped. After each block the
//! [`Observer`] sees where training stands and may end it, so progress bars, evaluations, checkpoints, logs and Ctrl-C
//! all live outside.
//!
//! Everything random comes from numbered streams of the seed: the same configuration on the same machine gives the same
//! agent, bit for bit, whatever the observer does. [`Trainer::visit`] shows the whole state; an environment is restored
//! by resetting it as its episode began and repeating the actions since. Fails with a sentence where training diverges.

use crate::agent::{self, Agent, UpdateStats};
use crate::config::Config;
use crate::env::{self, Decision, Env, EnvSpec};
use crate::noise::{Noise, of_words, words_of};
use crate::normaliser::Normaliser;
use crate::policy::ArtefactBytes;
use crate::replay::{Replay, Transition};
use crate::state::{Digest, Visitor};
use crate::transitions;
use crate::{Error, Result};
use cpu_time::ThreadTime;
use flowlet::policy::Artefact;
use std::ops::ControlFlow;
use std::path::Path;

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
    /// What went wrong where the environment ended it for that.
    pub fault: Option<&'static str>,
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
    /// CPU seconds of training alone: environments and updates, not the observer.
    pub cpu_seconds: f64,
    /// Posterior means that the estimator refused, over all updates: the policy's own sample took their place.
    pub refused: u64,
    /// What the last update reported; zeros before the first.
    pub last: UpdateStats,
}

/// What an observer may look at between two blocks.
pub struct View<'a> {
    /// Where training stands.
    pub progress: &'a Progress,
    /// The episodes that ended in the last block.
    pub episodes: &'a [Episode],
    /// The trainer itself: its agent, asked for actions with noise of the observer's own, is not disturbed in training.
    pub trainer: &'a mut Trainer,
}

/// Looks on while training runs, between blocks.
pub trait Observer {
    /// Called after every block. `Break` ends training with the work so far kept.
    fn block(&mut self, view: View<'_>) -> ControlFlow<()>;
}

/// Nobody looks on.
impl Observer for () {
    fn block(&mut self, _: View<'_>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// One environment with the episode it is in.
struct Lane {
    env: Decision,
    noise: Noise,
    /// State of `noise` when the episode began, and the plant's actions since: what it takes to come here again.
    began: [u64; 4],
    actions: Vec<f64>,
    episode_return: f64,
    length: u64,
    /// The action that is due, in the plant's units, and what it led to.
    action: Vec<f64>,
    outcome: Result<env::Transition>,
    next_obs: Vec<f32>,
}

impl Lane {
    fn new(env: Decision, noise: Noise) -> Self {
        let (obs, act) = (env.spec().obs(), env.spec().act());
        let outcome = Ok(env::Transition { reward: 0.0, control_steps: 0, terminated: false, truncated: false });
        Self {
            env,
            noise,
            began: [0; 4],
            actions: Vec::new(),
            episode_return: 0.0,
            length: 0,
            action: vec![0.0; act],
            outcome,
            next_obs: vec![0.0; obs],
        }
    }

    /// Carries the action out.
    fn advance(&mut self) {
        self.outcome = self.env.step(&self.action);
        self.env.observe(&mut self.next_obs);
    }

    /// Starts an episode; `obs` gets its first observation.
    fn reset(&mut self, obs: &mut [f32]) -> Result<()> {
        self.began = words_of(self.noise.rng());
        self.actions.clear();
        (self.episode_return, self.length) = (0.0, 0);
        self.env.reset(self.noise.rng())?;
        self.env.observe(obs);
        Ok(())
    }

    /// Brings the environment to where its episode stands.
    fn restore(&mut self, obs: &mut [f32]) -> Result<()> {
        self.env.reset(&mut of_words(self.began))?;
        for action in self.actions.chunks_exact(self.env.spec().act()) {
            self.env.step(action)?;
        }
        self.env.observe(obs);
        Ok(())
    }

    fn visit(&mut self, name: &str, visitor: &mut dyn Visitor) {
        self.noise.visit(&format!("{name}.noise"), visitor);
        visitor.u64s(&format!("{name}.began"), &mut self.began);
        visitor.wide_list(&format!("{name}.actions"), &mut self.actions);
        visitor.f64s(&format!("{name}.return"), std::slice::from_mut(&mut self.episode_return));
        visitor.u64s(&format!("{name}.length"), std::slice::from_mut(&mut self.length));
    }
}

/// Everything that training moves.
pub struct Trainer {
    config: Config,
    agent: Box<dyn Agent>,
    replay: Replay,
    lanes: Vec<Lane>,
    exploration: Noise,
    low: Vec<f32>,
    high: Vec<f32>,
    /// Raw observations of all lanes, side by side, the same normalised, and the actions for them.
    obs: Vec<f32>,
    normalised: Vec<f32>,
    actions: Vec<f32>,
    episodes: Vec<Episode>,
    progress: Progress,
    /// Updates that the decisions so far have bought and that were not made yet.
    owed: f64,
    /// An update gave numbers that are not finite, or an environment cannot begin: from here nothing can go on.
    broken: bool,
}

impl Trainer {
    /// Environments by name, reset; networks fresh.
    pub fn new(config: &Config) -> Result<Self> {
        Self::with_envs(config, |_| config.make_env())
    }

    /// As [`Self::new`], with environments of the caller's own: `make` is called with the number of each.
    pub fn with_envs(config: &Config, mut make: impl FnMut(usize) -> Result<Box<dyn Env>>) -> Result<Self> {
        let train = config.train();
        let mut lanes = Vec::with_capacity(train.num_envs);
        for i in 0..train.num_envs {
            let env = Decision::new(make(i)?, config.env.action_repeat);
            lanes.push(Lane::new(env, Noise::new(config.seed, STREAM_ENVIRONMENTS + i as u64)));
        }
        let Some(first) = lanes.first() else {
            return Err(Error::usage(format!(
                "{}.num_envs is 0: training needs at least one environment",
                config.algo()
            )));
        };
        let spec = first.env.spec();
        let (obs, act, low, high) = (spec.obs(), spec.act(), spec.low.clone(), spec.high.clone());
        let mut replay = Replay::with_normaliser(train.buffer_size, Normaliser::new(&config.env), act).spanning(
            train.n_step,
            train.num_envs,
            train.gamma as f32,
        );
        // About as many as the run decides: room beyond them would only be memory.
        let decisions = config.total_timesteps / config.env.action_repeat.max(1) as u64;
        replay.reserve(usize::try_from(decisions).unwrap_or(usize::MAX));
        let mut trainer = Self {
            agent: agent::make(&config.algorithm, obs, act, config.seed),
            replay,
            exploration: Noise::new(config.seed, STREAM_EXPLORATION),
            low,
            high,
            obs: vec![0.0; train.num_envs * obs],
            normalised: vec![0.0; train.num_envs * obs],
            actions: vec![0.0; train.num_envs * act],
            config: config.clone(),
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
            broken: false,
        };
        for (lane, obs) in trainer.lanes.iter_mut().zip(trainer.obs.chunks_exact_mut(obs)) {
            lane.reset(obs)?;
            trainer.replay.normaliser_mut().observe(obs);
        }
        Ok(trainer)
    }

    /// Starts from the policy and with the recorded transitions that the configuration names, if it does.
    pub fn warm_start(&mut self) -> Result<()> {
        if !self.config.init.is_empty() {
            let bytes = ArtefactBytes::read(Path::new(&self.config.init))?;
            let artefact = bytes.artefact()?;
            if let Some(lane) = self.lanes.first() {
                check_robot(&artefact, lane.env.spec())?;
            }
            self.agent.start_from(&artefact)?;
        }
        if self.config.replay.is_empty() {
            return Ok(());
        }
        let Some(lane) = self.lanes.first() else { return Ok(()) };
        let path = Path::new(&self.config.replay);
        let recorded = transitions::read(path, &lane.env)?;
        if recorded.len() > self.config.train().buffer_size {
            return Err(Error::usage(format!(
                "{} holds {} transitions and the replay buffer {}: raise {}.buffer_size",
                path.display(),
                recorded.len(),
                self.config.train().buffer_size,
                self.config.algo()
            )));
        }
        self.replay.grow(recorded.len());
        for row in &recorded {
            let limits = self.low.iter().zip(&self.high);
            for ((squashed, a), (&low, &high)) in self.actions.iter_mut().zip(&row.action).zip(limits) {
                // What the robot's own limits let through beyond ours counts as the limit.
                *squashed = ((*a as f32 - low) / (high - low) * 2.0 - 1.0).clamp(-1.0, 1.0);
            }
            self.replay.normaliser_mut().observe(&row.next_obs);
            self.replay.push(Transition {
                obs: &row.obs,
                action: &self.actions[..row.action.len()],
                reward: (row.reward * self.config.env.reward_scale) as f32,
                next_obs: &row.next_obs,
                terminated: row.terminated,
                // The record does not say where an episode was broken off.
                last: true,
            });
        }
        self.replay.normaliser_mut().refresh();
        Ok(())
    }

    /// Trains until the steps are used up or the observer breaks off. Returns whether it ran to its end.
    pub fn run(&mut self, observer: &mut dyn Observer) -> Result<bool> {
        while self.progress.steps < self.progress.total {
            let known = self.episodes.len();
            let started = ThreadTime::now();
            let learned = self.decide().and_then(|()| self.learn());
            self.progress.cpu_seconds += started.elapsed().as_secs_f64();
            learned?;
            let (progress, episodes) = (self.progress.clone(), self.episodes[known..].to_vec());
            if observer.block(View { progress: &progress, episodes: &episodes, trainer: self }).is_break() {
                return Ok(self.progress.steps >= self.progress.total);
            }
        }
        Ok(true)
    }

    /// One block of decisions.
    fn decide(&mut self) -> Result<()> {
        let lanes = self.lanes.len();
        for _ in 0..self.config.train().block.div_ceil(lanes) {
            // A policy to start from explores better than chance does.
            let random = self.progress.decisions < self.config.train().learning_starts;
            if random && self.config.init.is_empty() {
                self.exploration.uniform_in(&mut self.actions, -1.0, 1.0);
            } else {
                self.normalised.copy_from_slice(&self.obs);
                self.replay.normaliser().apply(&mut self.normalised);
                self.agent.act(&self.normalised, &mut self.actions);
            }
            self.advance();
            // All or none: replay knows an environment by its turn.
            if let Some(error) = self.lanes.iter().find_map(|lane| lane.outcome.as_ref().err()) {
                return Err(error.clone());
            }
            for lane in 0..lanes {
                self.take(lane)?;
                // A minibatch of fewer transitions than it has rows would only repeat them.
                if !random && self.replay.len() >= self.config.train().batch_size {
                    self.owed += self.config.train().updates_per_decision;
                }
            }
        }
        self.replay.normaliser_mut().refresh();
        Ok(())
    }

    /// Carries out every lane's action, on several threads where the environments are worth it. Lanes share nothing, so
    /// the threads change no bit.
    fn advance(&mut self) {
        let act = self.actions.len() / self.lanes.len();
        for (lane, action) in self.lanes.iter_mut().zip(self.actions.chunks_exact(act)) {
            let limits = self.low.iter().zip(&self.high);
            for ((out, a), (low, high)) in lane.action.iter_mut().zip(action).zip(limits) {
                *out = f64::from(low + (a + 1.0) * 0.5 * (high - low));
            }
        }
        let threads = self.config.env.threads.min(self.lanes.len());
        if threads < 2 {
            return self.lanes.iter_mut().for_each(Lane::advance);
        }
        let share = self.lanes.len().div_ceil(threads);
        let elsewhere = std::thread::scope(|scope| {
            let work = |lanes: &mut [Lane]| {
                let started = ThreadTime::now();
                lanes.iter_mut().for_each(Lane::advance);
                started.elapsed().as_secs_f64()
            };
            let handles: Vec<_> = self.lanes.chunks_mut(share).map(|lanes| scope.spawn(move || work(lanes))).collect();
            // A thread that panicked ends the program through the scope.
            handles.into_iter().filter_map(|handle| handle.join().ok()).sum::<f64>()
        });
        self.progress.cpu_seconds += elsewhere;
    }

    /// Stores what one lane's action led to, and starts anew where the episode ended.
    fn take(&mut self, index: usize) -> Result<()> {
        let lane = &mut self.lanes[index];
        let (obs, act) = (lane.next_obs.len(), lane.action.len());
        let before = &mut self.obs[index * obs..(index + 1) * obs];
        let outcome = lane.outcome.clone()?;
        // Only now, so that a failed step can be left out when the run goes on.
        lane.actions.extend_from_slice(&lane.action);
        self.replay.normaliser_mut().observe(&lane.next_obs);
        self.replay.push(Transition {
            obs: before,
            action: &self.actions[index * act..(index + 1) * act],
            reward: (outcome.reward * self.config.env.reward_scale) as f32,
            next_obs: &lane.next_obs,
            terminated: outcome.terminated,
            last: outcome.terminated || outcome.truncated,
        });
        self.progress.decisions += 1;
        self.progress.steps += outcome.control_steps as u64;
        lane.episode_return += outcome.reward;
        lane.length += outcome.control_steps as u64;
        if outcome.terminated || outcome.truncated {
            let (episode_return, length) = (lane.episode_return, lane.length);
            let fault = lane.env.fault();
            self.episodes.push(Episode { at: self.progress.steps, episode_return, length, fault });
            self.broken = true;
            lane.reset(before)?;
            self.broken = false;
            self.replay.normaliser_mut().observe(before);
        } else {
            before.copy_from_slice(&lane.next_obs);
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
                self.broken = true;
                return Err(Error::failure(format!(
                    "training diverged at control step {} (a loss is not finite), the last evaluated policy is kept: \
                     lower {algo}.q_lr, {algo}.policy_lr or env.reward_scale",
                    self.progress.steps,
                    algo = self.config.algo()
                )));
            }
        }
        Ok(())
    }

    /// Shows everything that training moves, the environments by how their episodes began and went.
    ///
    /// After numbers were put back through it, [`Self::restore`] brings the environments along.
    pub fn visit(&mut self, visitor: &mut dyn Visitor) {
        self.agent.visit(visitor);
        self.replay.visit(visitor);
        self.exploration.visit("exploration_noise", visitor);
        for (i, lane) in self.lanes.iter_mut().enumerate() {
            lane.visit(&format!("env_{i}"), visitor);
        }
        let p = &mut self.progress;
        let mut counts = [p.steps, p.decisions, p.updates, p.refused];
        visitor.u64s("counts", &mut counts);
        [p.steps, p.decisions, p.updates, p.refused] = counts;
        p.last.visit("last_update", visitor);
        visitor.f64s("owed_updates", std::slice::from_mut(&mut self.owed));
        visitor.f32s("observations", &mut self.obs);
        visitor.aside("cpu_seconds", &mut self.progress.cpu_seconds);
    }

    /// Brings the environments to where their episodes stand, after [`Self::visit`] put numbers back.
    ///
    /// Returns whether each of them shows what it showed before: one with randomness of its own does not.
    pub fn restore(&mut self) -> Result<bool> {
        let width = self.obs.len() / self.lanes.len();
        let mut same = true;
        for (lane, obs) in self.lanes.iter_mut().zip(self.obs.chunks_exact_mut(width)) {
            let shown = obs.to_vec();
            lane.restore(obs)?;
            same &= obs.iter().zip(&shown).all(|(now, before)| now.to_bits() == before.to_bits());
        }
        if !same {
            self.replay.cut();
        }
        Ok(same)
    }

    /// Whether training can go on from here: after an update that diverged it cannot. After an environment's failed step
    /// it can, from before that step.
    pub fn can_go_on(&self) -> bool {
        !self.broken
    }

    /// CRC-64 over everything that training moves, measured times apart: two trainers with one digest go on alike.
    pub fn digest(&mut self) -> u64 {
        Digest::of(|visitor| self.visit(visitor))
    }

    /// The agent.
    pub fn agent(&self) -> &dyn Agent {
        &*self.agent
    }

    /// The agent, to be asked for actions.
    pub fn agent_mut(&mut self) -> &mut dyn Agent {
        &mut *self.agent
    }

    /// The observation normaliser as it is now.
    pub fn normaliser(&self) -> &Normaliser {
        self.replay.normaliser()
    }

    /// The transitions so far.
    pub fn replay(&self) -> &Replay {
        &self.replay
    }

    /// What is configured.
    pub fn config(&self) -> &Config {
        &self.config
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

/// Refuses a policy whose channels or limits are another robot's.
fn check_robot(artefact: &Artefact<'_>, spec: &EnvSpec) -> Result<()> {
    let refuse = |what: String| Err(Error::usage(format!("{what}: start from a policy of the same robot")));
    let (policy, env) = (artefact.name(), &spec.name);
    let own = artefact.obs_names().chain(artefact.act_names());
    if let Some((own, other)) = own.zip(spec.obs_names.iter().chain(&spec.act_names)).find(|(own, other)| own != other)
    {
        return refuse(format!("the policy is for {policy}, and its channel {own} is {other} in {env}"));
    }
    let range = artefact.range();
    let limits = range.low.iter().zip(range.high).zip(spec.low.iter().zip(&spec.high)).zip(&spec.act_names);
    for (((low, high), (env_low, env_high)), channel) in limits {
        if (low, high) != (env_low, env_high) {
            return refuse(format!(
                "the policy's {channel} lies in [{low}, {high}], and that of {env} in [{env_low}, {env_high}]"
            ));
        }
    }
    Ok(())
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
        fn block(&mut self, View { progress, episodes, trainer }: View<'_>) -> ControlFlow<()> {
            self.blocks.push((progress.decisions, progress.updates));
            self.episodes += episodes.len();
            if self.evaluate {
                trainer.agent_mut().evaluate(&[0.0; 9], 4, &mut Noise::new(1, 1), &mut [0.0; 3]);
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
        // The last block is finished.
        assert_eq!(*count.blocks.last().unwrap(), (1616, 1416));
        // Four environments of 200 steps: two whole rounds of episodes in 1616 steps.
        assert_eq!((count.episodes, trainer.episodes().len()), (8, 8));
        assert_eq!(trainer.episodes()[0].at, 797);
        assert!(trainer.episodes().iter().all(|e| e.length == 200 && e.episode_return < -100.0));
        assert_eq!(trainer.replay.len(), 1616);
        assert_eq!(trainer.progress().steps, 1616);
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
        assert!((1201..1201 + 3 * 16).contains(&p.steps), "{p:?}");
        // 67 decisions in an episode: 66 of three steps, one of two.
        assert!(trainer.episodes().iter().all(|e| e.length == 200));
        assert!(p.decisions * 3 >= p.steps && p.decisions * 3 < p.steps + 60);
    }

    #[test]
    fn threads_of_the_environments_change_no_bit() {
        let digest = |threads: &str| {
            let mut trainer = Trainer::new(&config(&set(&["total_timesteps=900", threads]))).unwrap();
            trainer.run(&mut ()).unwrap();
            trainer.digest()
        };
        let alone = digest("env.threads=1");
        assert_eq!(alone, digest("env.threads=3"));
        assert_eq!(alone, digest("env.threads=9"));
    }

    #[test]
    fn observers_can_stop_and_never_disturb() {
        let run = |count: &mut Count, seed: u64| {
            let config = Config { seed, ..config(&set(&["total_timesteps=600"])) };
            let mut trainer = Trainer::new(&config).unwrap();
            let whole = trainer.run(count).unwrap();
            (whole, trainer.progress().steps, trainer.digest())
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
