//! `finetune`: a policy goes on learning on a plant that is not the one it was trained on, by the learner that runs on the
//! device, decision by decision as the device does it.
//!
//! The robot's time is simulated: episodes follow one another, each a block of the guard, and an update is done by the time
//! the next is due, so that the result is the device's, bit for bit, where that keeps up. At marks of robot time the
//! deployed policy and the learner's candidate are evaluated apart from the learning. Deterministic given the seed. No panics.

pub mod curve;
pub mod live;

use crate::env::{Decision, EnvSpec};
use crate::evaluate::{Player, play_plain};
use crate::stats::Summary;
use crate::{Error, Result};
use flowlet::finetune::guard::{self, Verdict};
use flowlet::finetune::session::{self, Session};
use flowlet::finetune::{Config, Optimiser, Storage, Trained, words};
use flowlet::policy::Artefact;
use live::Local;
use rand_xoshiro::Xoshiro128PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;

/// The reward that the learner is given: the task's, or a wrong one, to see that nothing comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reward {
    /// The task's.
    Task,
    /// Its negative.
    Flipped,
    /// Always one.
    Constant,
    /// Not a number.
    Missing,
}

impl Reward {
    fn of(self, reward: f64) -> f64 {
        match self {
            Self::Task => reward,
            Self::Flipped => -reward,
            Self::Constant => 1.0,
            Self::Missing => f64::NAN,
        }
    }
}

/// What a run does beside the learner's constants.
#[derive(Clone, Copy, Debug)]
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
    /// What the learner gets.
    pub reward: Reward,
    /// When candidates are screened and tried.
    pub session: session::Config,
}

/// A point of the curve.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Robot time, s.
    pub seconds: f64,
    /// Mean return of the episodes since the last row, whoever played.
    pub training: f64,
    /// The evaluation of the learner's candidate.
    pub acting: Summary,
    /// The evaluation of the policy that is deployed; the factory's at first.
    pub kept: Summary,
    /// What the session reports.
    pub report: session::Report,
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
    /// Candidates that were tried by the guard, and those of them that were promoted.
    pub trials: [u32; 2],
    /// Every verdict with its robot time, s.
    pub verdicts: Vec<(f64, Verdict)>,
    /// The parameters of the kept policy.
    pub params: Vec<f32>,
}

/// The named ways to configure a learner.
pub fn mode(name: &str, spec: &EnvSpec, artefact: &Artefact<'_>) -> Result<Config> {
    let of_task = |config: Config| Config {
        temperature: artefact.temperature().max(1e-3),
        // The largest reward of a decision that the task's scale makes of the plant's.
        reward_limit: (spec.reward_scale * 5.0) as f32,
        ..config
    };
    Config::MODES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, config)| of_task(*config))
        .ok_or_else(|| Error::usage(format!("there is no mode {name}: use adam, lean, all or last")))
}

/// Sets a constant by name.
pub fn set(config: &mut Config, options: &mut Options, key: &str, value: &str) -> Result<()> {
    let session = &mut options.session;
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
        "correlation" => config.correlation = to(key, value)?,
        "stride" => config.stride = to(key, value)?,
        "horizon" => config.horizon = to(key, value)?,
        "warmup" => config.warmup = to(key, value)?,
        "slice" => config.slice = to(key, value)?,
        "reward" => {
            options.reward = match value {
                "task" => Reward::Task,
                "flipped" => Reward::Flipped,
                "constant" => Reward::Constant,
                "nan" => Reward::Missing,
                _ => {
                    return Err(Error::usage(format!("finetune.{key}={value}: use task, flipped, constant or nan")));
                }
            }
        }
        "screening" => session.screening = to(key, value)?,
        "gain" => session.gain = to(key, value)?,
        "slack" => session.slack = to(key, value)?,
        "patience" => session.patience = to(key, value)?,
        "first" => session.first = to(key, value)?,
        "refresh" => session.refresh = to(key, value)?,
        "rounds" => session.guard.rounds = to(key, value)?,
        "alpha" => session.guard.alpha = to(key, value)?,
        "beta" => session.guard.beta = to(key, value)?,
        "margin" => session.guard.margin = to(key, value)?,
        _ => {
            return Err(Error::usage(format!(
                "the learner has no finetune.{key}: use actor, critic, optimiser, storage, transitions, batch, \
                 actor_batch, candidates, critic_rate, actor_rate, gradient_limit, discount, target_rate, acting_rate, \
                 temperature, spread, reward_limit, every, exploration, correlation, stride, horizon, warmup or slice; of \
                 the session screening, gain, slack, patience, first or refresh; of the guard rounds, alpha, beta or margin; or \
                 reward"
            )));
        }
    }
    Ok(())
}

/// Plays the deployed policy, or the learner's candidate.
struct Acting<'l, 'a> {
    session: &'l mut Session<'a, Vec<u32>>,
    whom: guard::Player,
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
        if self.session.ask(self.whom, observation, &mut self.rng, action) {
            return Ok(());
        }
        Err(Error::failure("an observation is not finite"))
    }
}

/// The session's constants for an environment: blocks are episodes, from their reset.
pub fn session_config(spec: &EnvSpec) -> Result<session::Config> {
    let block = u16::try_from(spec.time_limit).map_err(|_| {
        Error::usage(format!("an episode of {} is longer than 65,535 control steps: it cannot be a block", spec.name))
    })?;
    let blocks = guard::Config { settle: 0, ..guard::Config::new(block) };
    Ok(session::Config::new(blocks))
}

/// Fine-tunes; `seen` gets every row of the curve. `live` is the robot, control step by control step; `apart` is the same
/// environment decision by decision, for evaluations.
pub fn finetune(
    artefact: &Artefact<'_>,
    config: Config,
    options: &Options,
    (live, apart): (&mut Decision, &mut Decision),
    seen: &mut dyn FnMut(&Row) -> Result<()>,
) -> Result<Outcome> {
    let (Some(velocity), Some(critic)) = (artefact.velocity().as_f32(), artefact.critics().next()) else {
        return Err(Error::usage(
            "fine-tuning needs a policy in f32 that carries its critics: export it without --without-critic",
        ));
    };
    if live.metric().is_none() {
        return Err(Error::usage(format!(
            "fine-tuning needs a task metric, which {} has not: use pendulum, cartpole, furuta, acrobot or quadrotor2d",
            live.spec().name
        )));
    }
    let ram_bytes = 4 * words(velocity.shape(), critic.shape(), &config) + size_of::<Session<'static, [u32; 0]>>();
    let mut pupil = Local::new(artefact, config, options)?;
    let mut run = Run { played: Vec::new(), rows: Vec::new(), options };
    run.report(&mut pupil, apart, (0.0, true), seen)?;
    let (period, repeat) = (live.period(), apart.action_repeat());
    let every = (options.every / period).round().max(1.0) as u64;
    let mut reported = 0;
    self::live::live(&mut pupil, live, repeat, options, &mut |pupil, moment| {
        run.played.extend(moment.episode_return);
        let marks = moment.steps / every;
        if marks > reported || moment.is_last {
            reported = marks;
            run.report(pupil, apart, (moment.steps as f64 * period, moment.is_last), seen)?;
        }
        Ok(())
    })?;
    let mut params = vec![0.0; velocity.params().len()];
    pupil.session.learner().merge(&mut params);
    let better = pupil.verdicts.iter().filter(|(_, verdict)| *verdict == Verdict::Better).count();
    Ok(Outcome {
        rows: run.rows,
        ram_bytes,
        resets: pupil.session.learner().resets(),
        trials: [u32::from(pupil.session.report().guard.candidates), better as u32],
        verdicts: pupil.verdicts.iter().map(|(step, verdict)| (*step as f64 * period, *verdict)).collect(),
        params,
    })
}

/// A run under way.
struct Run<'o> {
    options: &'o Options,
    played: Vec<f64>,
    rows: Vec<Row>,
}

impl Run<'_> {
    /// Evaluates both policies, with more episodes at the ends.
    fn report(
        &mut self,
        pupil: &mut Local<'_>,
        apart: &mut Decision,
        (seconds, end): (f64, bool),
        seen: &mut dyn FnMut(&Row) -> Result<()>,
    ) -> Result<()> {
        let report = pupil.session.report();
        let (episodes, seed) = (self.options.episodes[usize::from(end)], self.options.eval_seed);
        let mut play = |whom: guard::Player| -> Result<Summary> {
            let rng = Xoshiro128PlusPlus::seed_from_u64(0);
            let mut player = Acting { session: &mut pupil.session, whom, rng };
            Ok(play_plain(&mut player, apart, episodes, seed, &mut |_| {})?.plain())
        };
        let (acting, kept) = (play(guard::Player::Candidate)?, play(guard::Player::Incumbent)?);
        let training = self.played.iter().sum::<f64>() / self.played.len() as f64;
        self.played.clear();
        let row = Row { seconds, training, acting, kept, report };
        seen(&row)?;
        self.rows.push(row);
        Ok(())
    }
}
