//! `finetune`: a policy goes on learning on a plant that is not the one it was trained on, by the learner that runs on the
//! device, decision by decision as the device does it.
//!
//! The robot's time is simulated: episodes follow one another, every decision is recorded, and an update must be done by
//! the time the next is due, so that the result is the device's, bit for bit, where that keeps up. Between episodes, at
//! marks of robot time, the policy is evaluated apart from its learning. Deterministic given the seed. No panics.

pub mod curve;

use crate::env::{Decision, EnvSpec};
use crate::evaluate::{Player, play_plain};
use crate::noise::Noise;
use crate::stats::Summary;
use crate::{Error, Result};
use flowlet::finetune::{After, Config, Learner, Optimiser, Report, Storage, Trained, words};
use flowlet::policy::Artefact;
use rand_xoshiro::Xoshiro128PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;

/// Streams of the seed.
const STREAM_RESETS: u64 = 400;
const STREAM_NOISE: u64 = 401;

/// What a run does beside the learner's constants.
#[derive(Clone, Debug)]
pub struct Options {
    /// Seed of everything random.
    pub seed: u64,
    /// Robot time, s.
    pub seconds: f64,
    /// Robot time between evaluations, s.
    pub every: f64,
    /// Episodes of an evaluation, and of the first and the last.
    pub episodes: [usize; 2],
    /// Seed of the evaluations' episodes.
    pub eval_seed: u64,
    /// Factor on the reward of a decision, as in training.
    pub reward_scale: f64,
    /// Episodes of a trial, after which the acting policy is kept, goes on or is rolled back.
    pub trial: usize,
}

/// A point of the curve.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Robot time, s.
    pub seconds: f64,
    /// Updates so far.
    pub updates: u32,
    /// Mean return of the training episodes since the last row.
    pub training: f64,
    /// The evaluation of the policy that acts.
    pub acting: Summary,
    /// The evaluation of the policy that is kept; the factory's at first.
    pub kept: Summary,
    /// Mean absolute temporal-difference error of the last update.
    pub td_error: f32,
    /// Its mean value.
    pub value: f32,
    /// Its mean effective number of candidates.
    pub effective: f32,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The curve, from before the first decision to the end.
    pub rows: Vec<Row>,
    /// Bytes of memory that the learner has.
    pub ram_bytes: usize,
    /// Resets after divergence.
    pub resets: u32,
    /// Trials after which the policy was rolled back.
    pub rolled_back: u32,
    /// The parameters of the kept policy.
    pub params: Vec<f32>,
}

/// The share of the kept policy's return below which a trial is lost.
const LOST: f64 = 0.07;

/// Trials of the acting policy: a stand-in for a test with stated error rates, on the return of the learner's own reward.
struct Trials {
    length: usize,
    best: f64,
    returns: Vec<f64>,
    rolled_back: u32,
}

impl Trials {
    fn new(length: usize) -> Self {
        Self { length: length.max(1), best: f64::NEG_INFINITY, returns: Vec::new(), rolled_back: 0 }
    }

    fn episode(&mut self, total: f64, learner: &mut Learner<'_, Vec<u32>>) {
        self.returns.push(total);
        if self.returns.len() < self.length {
            return;
        }
        let mean = self.returns.iter().sum::<f64>() / self.length as f64;
        self.returns.clear();
        if mean > self.best {
            self.best = mean;
            learner.keep();
        } else if mean < self.best - LOST * self.best.abs() {
            self.rolled_back += 1;
            learner.roll_back();
        }
        // The policy that is measured next does not change while it is.
        learner.promote();
    }
}

/// The named ways to configure a learner.
pub fn mode(name: &str, spec: &EnvSpec, artefact: &Artefact<'_>) -> Result<Config> {
    let adam = Config {
        actor: Trained::LowRank(1),
        critic: Trained::LowRank(7),
        optimiser: Optimiser::Adam,
        transitions: 2000,
        storage: Storage::I16,
        batch: 16,
        actor_batch: 8,
        candidates: 8,
        critic_rate: 1e-3,
        actor_rate: 3e-4,
        gradient_limit: 10.0,
        discount: 0.99,
        target_rate: 0.01,
        acting_rate: 0.01,
        temperature: artefact.temperature().max(1e-3),
        spread: 0.3,
        // The largest reward of a decision that the task's scale makes of the plant's.
        reward_limit: (spec.reward_scale * 5.0) as f32,
        every: 4,
        warmup: 500,
        exploration: 0.05,
        thinning: 4,
        slice: 20_000,
    };
    Ok(match name {
        "adam" => adam,
        "lean" => Config { optimiser: Optimiser::Lean, transitions: 500, critic: Trained::LowRank(3), ..adam },
        "all" => Config { actor: Trained::All, critic: Trained::All, ..adam },
        "last" => Config { actor: Trained::Last(1), critic: Trained::Last(1), ..adam },
        _ => return Err(Error::usage(format!("there is no mode {name}: use adam, lean, all or last"))),
    })
}

/// Sets a constant by name.
pub fn set(config: &mut Config, key: &str, value: &str) -> Result<()> {
    fn to<T: std::str::FromStr>(key: &str, value: &str) -> Result<T> {
        value.parse().map_err(|_| Error::usage(format!("finetune.{key}={value}: this is no number that fits it")))
    }
    let trained = |value: &str| -> Result<Trained> {
        Ok(match value.split_once('-') {
            None if value == "all" => Trained::All,
            None if value == "bias" => Trained::Bias,
            Some(("last", n)) => Trained::Last(to(key, n)?),
            Some(("rank", n)) => Trained::LowRank(to(key, n)?),
            _ => return Err(Error::usage(format!("finetune.{key}={value}: use all, bias, last-N or rank-N"))),
        })
    };
    match key {
        "actor" => config.actor = trained(value)?,
        "critic" => config.critic = trained(value)?,
        "optimiser" => {
            config.optimiser = match value {
                "momentum" => Optimiser::Momentum,
                "adam" => Optimiser::Adam,
                "lean" => Optimiser::Lean,
                _ => return Err(Error::usage(format!("finetune.optimiser={value}: use momentum, adam or lean"))),
            }
        }
        "storage" => {
            config.storage = match value {
                "f32" => Storage::F32,
                "i16" => Storage::I16,
                _ => return Err(Error::usage(format!("finetune.storage={value}: use f32 or i16"))),
            }
        }
        "transitions" => config.transitions = to(key, value)?,
        "batch" => config.batch = to(key, value)?,
        "actor_batch" => config.actor_batch = to(key, value)?,
        "candidates" => config.candidates = to(key, value)?,
        "critic_rate" => config.critic_rate = to(key, value)?,
        "actor_rate" => config.actor_rate = to(key, value)?,
        "gradient_limit" => config.gradient_limit = to(key, value)?,
        "discount" => config.discount = to(key, value)?,
        "target_rate" => config.target_rate = to(key, value)?,
        "acting_rate" => config.acting_rate = to(key, value)?,
        "temperature" => config.temperature = to(key, value)?,
        "spread" => config.spread = to(key, value)?,
        "reward_limit" => config.reward_limit = to(key, value)?,
        "every" => config.every = to(key, value)?,
        "exploration" => config.exploration = to(key, value)?,
        "thinning" => config.thinning = to(key, value)?,
        "warmup" => config.warmup = to(key, value)?,
        _ => {
            return Err(Error::usage(format!(
                "the learner has no finetune.{key}: use actor, critic, optimiser, storage, transitions, batch, \
                 actor_batch, candidates, critic_rate, actor_rate, gradient_limit, discount, target_rate, acting_rate, \
                 temperature, spread, reward_limit, every or warmup"
            )));
        }
    }
    Ok(())
}

/// Plays the learner's acting policy, or the one that is kept.
struct Acting<'l, 'a> {
    learner: &'l mut Learner<'a, Vec<u32>>,
    kept: bool,
    rng: Xoshiro128PlusPlus,
}

impl Player for Acting<'_, '_> {
    fn is_critical(&self) -> bool {
        false
    }

    fn begin(&mut self, number: u64) {
        self.rng = Xoshiro128PlusPlus::seed_from_u64(number);
    }

    fn act(&mut self, observation: &[f32], _: Option<usize>, action: &mut [f32]) -> Result<()> {
        let decided = if self.kept {
            self.learner.act_kept(observation, &mut self.rng, action)
        } else {
            self.learner.act(observation, &mut self.rng, action)
        };
        if decided {
            return Ok(());
        }
        Err(Error::failure("an observation is not finite"))
    }
}

/// Fine-tunes; `seen` gets every row of the curve. `apart` is the same environment, for evaluations.
pub fn finetune(
    artefact: &Artefact<'_>,
    config: Config,
    options: &Options,
    (env, apart): (&mut Decision, &mut Decision),
    seen: &mut dyn FnMut(&Row) -> Result<()>,
) -> Result<Outcome> {
    let (Some(velocity), Some(critic)) = (artefact.velocity().as_f32(), artefact.critics().next()) else {
        return Err(Error::usage(
            "fine-tuning needs a policy in f32 that carries its critics: export it without --without-critic",
        ));
    };
    let memory = vec![0; words(velocity.shape(), critic.shape(), &config)];
    let ram_bytes = 4 * memory.len() + size_of::<Learner<'static, [u32; 0]>>();
    let mut learner = Learner::new(artefact, config, options.seed, memory).map_err(|e| Error::usage(e.to_string()))?;
    let mut run = Run {
        resets: Noise::new(options.seed, STREAM_RESETS),
        rng: Xoshiro128PlusPlus::seed_from_u64(options.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ STREAM_NOISE),
        trials: Trials::new(options.trial),
        played: Vec::new(),
        rows: Vec::new(),
        options,
    };
    run.report(&mut learner, apart, (0.0, true), seen)?;
    run.live(&mut learner, env, apart, seen)?;
    let mut params = vec![0.0; velocity.params().len()];
    learner.merge(&mut params);
    let (resets, rolled_back) = (learner.resets(), run.trials.rolled_back);
    Ok(Outcome { rows: run.rows, ram_bytes, resets, rolled_back, params })
}

/// A run under way.
struct Run<'o> {
    options: &'o Options,
    resets: Noise,
    rng: Xoshiro128PlusPlus,
    trials: Trials,
    played: Vec<f64>,
    rows: Vec<Row>,
}

impl Run<'_> {
    /// The robot's time, decision by decision.
    fn live(
        &mut self,
        learner: &mut Learner<'_, Vec<u32>>,
        env: &mut Decision,
        apart: &mut Decision,
        seen: &mut dyn FnMut(&Row) -> Result<()>,
    ) -> Result<()> {
        let decisions = (self.options.seconds / env.period()).round() as u64;
        let every = (self.options.every / env.period()).round().max(1.0) as u64;
        let (obs, act) = (env.spec().obs(), env.spec().act());
        let (mut observation, mut action, mut plant_action) = (vec![0.0f32; obs], vec![0.0f32; act], vec![0.0f64; act]);
        let mut total = 0.0;
        env.reset(self.resets.rng())?;
        env.observe(&mut observation);
        for decision in 1..=decisions {
            // What a device did since the last decision.
            learner.finish();
            learner.pulse();
            if !learner.explore(&observation, &mut self.rng, &mut action) {
                return Err(Error::failure("an observation is not finite"));
            }
            plant_action.iter_mut().zip(&action).for_each(|(p, a)| *p = f64::from(*a));
            let outcome = env.step(&plant_action)?;
            total += outcome.reward;
            let reward = (outcome.reward * self.options.reward_scale) as f32;
            let after = if outcome.terminated { After::Terminal } else { After::Next };
            learner.record(&observation, &action, reward, after);
            env.observe(&mut observation);
            if outcome.terminated || outcome.truncated {
                if !outcome.terminated {
                    learner.record(&observation, &action, 0.0, After::Unknown);
                }
                self.played.push(total);
                self.trials.episode(std::mem::take(&mut total), learner);
                env.reset(self.resets.rng())?;
                env.observe(&mut observation);
            }
            if decision % every == 0 || decision == decisions {
                let at = (decision as f64 * env.period(), decision == decisions);
                self.report(learner, apart, at, seen)?;
            }
        }
        Ok(())
    }

    /// Evaluates both policies, with more episodes at the ends.
    fn report(
        &mut self,
        learner: &mut Learner<'_, Vec<u32>>,
        apart: &mut Decision,
        (seconds, end): (f64, bool),
        seen: &mut dyn FnMut(&Row) -> Result<()>,
    ) -> Result<()> {
        let (said, updates) = (learner.report(), learner.updates());
        let (episodes, seed) = (self.options.episodes[usize::from(end)], self.options.eval_seed);
        let mut play = |kept: bool| -> Result<Summary> {
            let mut player = Acting { learner, kept, rng: Xoshiro128PlusPlus::seed_from_u64(0) };
            Ok(Summary::of(&play_plain(&mut player, apart, episodes, seed, &mut |_| {})?))
        };
        let (acting, kept) = (play(false)?, play(true)?);
        let training = self.played.iter().sum::<f64>() / self.played.len() as f64;
        let Report { td_error, value, effective } = said;
        self.played.clear();
        let row = Row { seconds, updates, training, acting, kept, td_error, value, effective };
        seen(&row)?;
        self.rows.push(row);
        Ok(())
    }
}
