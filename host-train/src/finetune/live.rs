//! The robot's time while it learns: a plant and one that decides for it and learns, decision by decision.
//!
//! Who learns is a [`Pupil`]: a session here ([`Local`]) or one on a board at the end of a line
//! ([`crate::hil::learn::BoardPupil`]). Both get the same start states, noise, rewards and metrics, so what they learn must
//! have the same bits. Deterministic given the seed. No panics.

use super::Options;
use crate::env::Decision;
use crate::noise::Noise;
use crate::policy::HostPolicy;
use crate::transitions::Recorded;
use crate::{Error, Result};
use flowlet::finetune::guard::{Passage, Verdict};
use flowlet::finetune::session::{self, Event, Session};
use flowlet::finetune::{Config, Learner, LearnerError, words};
use flowlet::policy::Artefact;
use flowlet_link::learning::End;
use rand_xoshiro::Xoshiro128PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;

/// Streams of the seed.
const STREAM_RESETS: u64 = 400;
const STREAM_NOISE: u64 = 401;

/// Seed of the stream that all decisions of a run draw from.
pub fn noise_seed(seed: u64) -> u64 {
    seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ STREAM_NOISE
}

/// One that decides and learns.
pub trait Pupil {
    /// Decides, in the plant's units.
    fn decide(&mut self, observation: &[f32], action: &mut [f32]) -> Result<()>;

    /// What the action led to: the learner's reward and the guard's metric of each control step, and what follows.
    fn after(&mut self, action: &[f32], steps: &[(f32, f32)], end: End) -> Result<()>;
}

/// Where a run stands after a decision's control steps.
#[derive(Debug)]
pub struct Moment {
    /// Control steps so far.
    pub steps: u64,
    /// Whether the robot's time is over.
    pub is_last: bool,
    /// Return of the episode, where it ended here.
    pub episode_return: Option<f64>,
    /// What happened, with the task's own reward.
    pub transition: Recorded,
}

/// Lives for [`Options::seconds`] on `env`, control step by control step, with a decision every `repeat` of them; `seen` gets
/// every decision. At the end the last episode is broken off.
pub fn live<P: Pupil>(
    pupil: &mut P,
    env: &mut Decision,
    repeat: usize,
    options: &Options,
    seen: &mut dyn FnMut(&mut P, Moment) -> Result<()>,
) -> Result<()> {
    let limit = (options.seconds / env.period()).round() as u64;
    let (obs, act) = (env.spec().obs(), env.spec().act());
    let (mut observation, mut action, mut plant_action) = (vec![0.0f32; obs], vec![0.0f32; act], vec![0.0f64; act]);
    let mut resets = Noise::new(options.seed, STREAM_RESETS);
    let (mut steps, mut total, mut pairs) = (0, 0.0, Vec::new());
    env.reset(resets.rng())?;
    env.observe(&mut observation);
    while steps < limit {
        pupil.decide(&observation, &mut action)?;
        plant_action.iter_mut().zip(&action).for_each(|(p, a)| *p = f64::from(*a));
        let (before, mut reward, mut outcome) = (observation.clone(), 0.0, None);
        pairs.clear();
        while pairs.len() < repeat.max(1) && steps < limit {
            let step = env.step(&plant_action)?;
            steps += 1;
            total += step.reward;
            reward += step.reward;
            env.observe(&mut observation);
            let taught = (options.reward.of(step.reward) * options.reward_scale) as f32;
            pairs.push((taught, env.metric().unwrap_or(f32::NAN)));
            outcome = Some(step);
            if step.terminated || step.truncated {
                break;
            }
        }
        let (terminated, truncated) = outcome.map_or((false, false), |step| (step.terminated, step.truncated));
        let end = match (terminated, truncated || steps == limit) {
            (true, _) => End::Terminated,
            (_, true) => End::Cut,
            _ => End::GoesOn,
        };
        pupil.after(&action, &pairs, end)?;
        let is_over = terminated || truncated;
        let transition =
            Recorded { obs: before, action: plant_action.clone(), reward, next_obs: observation.clone(), terminated };
        let episode_return = is_over.then(|| std::mem::take(&mut total));
        seen(pupil, Moment { steps, is_last: steps == limit, episode_return, transition })?;
        if is_over && steps < limit {
            env.reset(resets.rng())?;
            env.observe(&mut observation);
        }
    }
    Ok(())
}

/// A session on this computer.
pub struct Local<'a> {
    /// The session.
    pub session: Session<'a, Vec<u32>>,
    /// Control steps so far and verdict, for each verdict of the guard.
    pub verdicts: Vec<(u64, Verdict)>,
    factory: HostPolicy<'a>,
    rng: Xoshiro128PlusPlus,
    /// What a journal would have.
    state: Vec<u8>,
    steps: u64,
}

impl<'a> Local<'a> {
    /// A session on an artefact that carries its critics.
    pub fn new(artefact: &Artefact<'a>, config: Config, options: &Options) -> Result<Self> {
        let critic = artefact.critics().next().ok_or_else(|| Error::usage(LearnerError::Critics.to_string()))?;
        let velocity = artefact.velocity().shape();
        let memory = vec![0; words(velocity, critic.shape(), &config)];
        let learner = Learner::new(artefact, config, options.seed, memory).map_err(|e| Error::usage(e.to_string()))?;
        let session = Session::new(learner, options.session, options.seed).map_err(|e| Error::usage(e.to_string()))?;
        Ok(Self {
            session,
            verdicts: Vec::new(),
            factory: HostPolicy::new(*artefact)?,
            rng: Xoshiro128PlusPlus::seed_from_u64(noise_seed(options.seed)),
            state: vec![0; session::state_bytes(velocity, &config)],
            steps: 0,
        })
    }
}

impl Pupil for Local<'_> {
    fn decide(&mut self, observation: &[f32], action: &mut [f32]) -> Result<()> {
        // What a device did since the last decision.
        self.session.finish();
        let factory = &mut self.factory;
        let play = |rng: &mut Xoshiro128PlusPlus, action: &mut [f32]| factory.act(observation, rng, action);
        self.session.decide(observation, &mut self.rng, action, play)
    }

    fn after(&mut self, action: &[f32], steps: &[(f32, f32)], end: End) -> Result<()> {
        for (i, (reward, metric)) in steps.iter().enumerate() {
            self.steps += 1;
            let mut event = self.session.after(Passage::Free, action, *reward, *metric);
            if end == End::Terminated && i + 1 == steps.len() {
                event = self.session.terminated().or(event);
            }
            if let Some(Event::Verdict(verdict)) = event {
                self.verdicts.push((self.steps, verdict));
            }
        }
        if end != End::GoesOn {
            self.session.cut();
            if self.session.wants_saving() {
                self.session.save(&mut self.state).map_err(|e| Error::failure(e.to_string()))?;
                self.session.saved();
            }
        }
        Ok(())
    }
}
