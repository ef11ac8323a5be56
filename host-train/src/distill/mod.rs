//! One-step policies from a trained run: two ways to learn them, their returns against ten steps, and the better one as an
//! ordinary artefact.
//!
//! A flow policy carries noise x_0 to a latent along an ODE. Here a network learns to do that in one evaluation,
//! x_0 + u(x_0, s): [`head`] regresses it on where ten Euler steps end, [`mean_velocity`] learns the mean of the velocity
//! from Reverse Flow Matching's own target. Both learn at states of the run's replay buffer and of episodes that the flow
//! and then the student itself play ([`Course::rounds`]), so that they are right where they lead. `auto` learns both
//! and keeps the one with the greater return in validation episodes; the losses that are reported are of other episodes,
//! which no choice has seen.
//!
//! The result has one Euler step and no time features, and is written, read and run like any other policy. Deterministic
//! given run and seed, CPU times apart. No panics; a run is only read.

pub mod head;
pub mod mean_velocity;
pub mod score;
pub mod teacher;

use crate::checkpoint;
use crate::config::Config;
use crate::env::Decision;
use crate::evaluate::{ArtefactPlayer, Evaluation, record};
use crate::nn::velocity::VelocityNet;
use crate::noise::Noise;
use crate::policy::ArtefactBytes;
use crate::run::RunDir;
use crate::session;
use crate::stats::Summary;
use crate::train::Trainer;
use crate::{Error, Result};
use clap::ValueEnum;
use cpu_time::ThreadTime;
use flowlet::flow::{Plan, Solver};
use head::Head;
use mean_velocity::MeanVelocity;
use score::{loss, play, play_random, stray};
use std::f32::consts::PI;
use std::sync::atomic::{AtomicBool, Ordering};
use teacher::{STEPS, States, Teacher};

/// Streams of the seed.
const STREAM_WEIGHTS: u64 = 300;
const STREAM_UPDATES: u64 = 301;
const STREAM_STRAY: u64 = 302;
/// Seeds of episodes, apart from those of evaluations that people ask for: to learn from, to choose by, to report.
const PLAYED: u64 = 0x5eed_0000_0000;
const VALIDATION: u64 = 0x5eed_1000_0000;
const TEST: u64 = 0x5eed_2000_0000;
/// States at which [`stray`] looks.
const LOOKED_AT: usize = 2_000;

/// How to learn a one-step policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Method {
    /// Both, and keep the better one
    Auto,
    /// Regress on where ten steps of the flow end
    Distil,
    /// Learn the mean of the velocity along the flow from the critics
    MeanVelocity,
}

impl Method {
    /// As it is typed and printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Distil => "distil",
            Self::MeanVelocity => "mean-velocity",
        }
    }
}

/// What may be chosen.
#[derive(Clone, Debug)]
pub struct Options {
    /// The way to learn it.
    pub method: Method,
    /// Updates of each way.
    pub updates: u64,
    /// Seed of everything random.
    pub seed: u64,
    /// Episodes of the reported losses, and half as many to choose by.
    pub episodes: usize,
    /// Width of the student's hidden layers; none for the teacher's.
    pub width: Option<usize>,
}

/// How a student learns.
#[derive(Clone, Copy, Debug)]
pub struct Course {
    /// Updates.
    pub updates: u64,
    /// States of an update.
    pub batch: usize,
    /// Adam's rate at the start; it falls along half a cosine to a hundredth of that.
    pub rate: f32,
    /// Parts of the course, before each of which episodes are played: the flow's before the first, then the student's.
    pub rounds: u64,
    /// Episodes played before each.
    pub episodes: usize,
}

impl Course {
    /// The constants that were found to do.
    pub fn new(updates: u64) -> Self {
        Self { updates, batch: 256, rate: 1e-3, rounds: 5, episodes: 8 }
    }

    fn rate(&self, update: u64) -> f32 {
        let share = update as f32 / self.updates as f32;
        self.rate * (0.01 + 0.99 * 0.5 * (1.0 + (PI * share).cos()))
    }
}

/// A student under way.
pub trait Learner {
    /// One update at normalised states, with Adam's rate; returns the loss.
    fn update(&mut self, s: &[f32], rate: f32, noise: &mut Noise) -> f32;
    /// The one-step network as it is.
    fn one_step(&self) -> VelocityNet;
}

/// A policy that was played.
#[derive(Clone, Debug)]
pub struct Row {
    /// What it is.
    pub name: String,
    /// Its test episodes.
    pub test: Evaluation,
    /// Its loss in them.
    pub loss: Summary,
    /// Its loss in the validation episodes, where it was a candidate.
    pub validation: Option<Summary>,
    /// The share of its actions that the flow never takes, where it was a candidate.
    pub stray: Option<f64>,
    /// CPU-seconds of learning it.
    pub cpu_seconds: f64,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The run's configuration.
    pub config: Config,
    /// Random actions, ten steps, the run's own plan, one plain Euler step, and the candidates in order.
    pub rows: Vec<Row>,
    /// Which of the rows was kept.
    pub kept: usize,
    /// The share of the flow's own actions that [`stray`] finds astray.
    pub stray_of_ten: f64,
    /// Episodes of the reported losses, and those to choose by.
    pub episodes: [usize; 2],
    /// The kept policy, the run's critics with it.
    pub policy: ArtefactBytes,
}

/// Learns one-step policies from a run and compares them. `say` is told what is going on.
pub fn distill(run: &RunDir, options: &Options, stop: &AtomicBool, say: &mut dyn FnMut(&str)) -> Result<Outcome> {
    let config = run.config(None)?;
    let shown = run.path().display();
    if config.algo() != "rfm" {
        return Err(Error::usage(format!(
            "{shown} is a run of {}, and only rfm trains a flow that can be distilled: give a run of rfm",
            config.algo()
        )));
    }
    let Some(mut checkpoint) = checkpoint::newest(&run.checkpoints())?.newest else {
        return Err(Error::failure(format!("{shown} has no checkpoint yet: `resume` starts it again")));
    };
    let mut trainer = Trainer::new(&config)?;
    checkpoint.restore(&mut trainer)?;
    let bytes = session::artefact(&trainer)?;
    let (Some(agent), Some(own)) = (trainer.agent().as_rfm(), bytes) else {
        return Err(Error::failure(format!("{shown} holds no flow")));
    };
    if trainer.replay().is_empty() {
        return Err(Error::failure(format!("{shown} has met no states yet: `resume` it first")));
    }
    let env = Decision::new(config.make_env()?, config.env.action_repeat);
    let states = States::new(trainer.replay(), Course::new(options.updates).batch, env.spec().act());
    Bench { teacher: Teacher::of(agent)?, own, env, options, stop, say }.compare(config, states)
}

/// Everything that a comparison needs.
struct Bench<'a> {
    teacher: Teacher,
    own: ArtefactBytes,
    env: Decision,
    options: &'a Options,
    stop: &'a AtomicBool,
    say: &'a mut dyn FnMut(&str),
}

impl Bench<'_> {
    fn compare(mut self, config: Config, mut states: States<'_>) -> Result<Outcome> {
        let options = self.options;
        let episodes = [options.episodes, options.episodes.div_ceil(2)];
        let (test, validation) = ((episodes[0], TEST + options.seed), (episodes[1], VALIDATION + options.seed));
        let plan = *self.own.artefact()?.plan();
        let ten = self.own.revised(Plan { solver: Solver::Euler, steps: STEPS, ..plan }, false)?;
        let one = self.own.revised(Plan { solver: Solver::Euler, steps: 1, ..plan }, false)?;
        self.gather(&mut states, &ten, 0)?;

        let methods = [Method::Distil, Method::MeanVelocity];
        let methods = methods.into_iter().filter(|m| options.method == Method::Auto || options.method == *m);
        let mut candidates = Vec::new();
        for method in methods {
            (self.say)(&format!("learning by {}, {} updates", method.name(), options.updates));
            let mut states = states.clone();
            let started = ThreadTime::now();
            let net = self.learn(method, &mut states)?;
            let cpu_seconds = started.elapsed().as_secs_f64();
            candidates.push((method.name(), self.own.one_step(&net, true)?, net, cpu_seconds));
        }

        (self.say)(&format!("playing {} and {} episodes with each policy", episodes[1], episodes[0]));
        let random = [validation, test].map(|which| play_random(&mut self.env, which, self.stop));
        let [random_v, random_t] = random;
        let (random_v, random_t) = (random_v?, random_t?);
        let (ten_v, ten_t) = (self.play(&ten, validation)?, self.play(&ten, test)?);
        let row = |name: &str, test: Evaluation| Row {
            name: name.to_string(),
            loss: loss(&test, &ten_t, &random_t),
            test,
            validation: None,
            stray: None,
            cpu_seconds: 0.0,
        };
        let mut rows = vec![row("random actions", random_t.clone()), row("ten steps", ten_t.clone())];
        rows.push(row(&format!("own plan, {} {} steps", plan.steps, plan.solver.name()), self.play(&self.own.clone(), test)?));
        rows.push(row("one plain Euler step", self.play(&one, test)?));
        let mut noise = Noise::new(options.seed, STREAM_STRAY);
        let obs = self.env.spec().obs();
        let looked_at: Vec<f32> = (0..LOOKED_AT)
            .flat_map(|_| {
                let at = noise.below(states.played().len() / obs) * obs;
                states.played()[at..at + obs].to_vec()
            })
            .collect();
        let mut kept = None::<(usize, f64)>;
        let mut policy = None;
        for (name, bytes, net, cpu_seconds) in candidates {
            let validated = loss(&self.play(&bytes, validation)?, &ten_v, &random_v);
            if kept.is_none_or(|(_, best)| validated.mean < best) {
                kept = Some((rows.len(), validated.mean));
                policy = Some(bytes.clone());
            }
            let stray = Some(stray(&mut self.teacher, Some(&net), &looked_at, &mut noise));
            rows.push(Row { validation: Some(validated), stray, cpu_seconds, ..row(name, self.play(&bytes, test)?) });
        }
        let stray_of_ten = stray(&mut self.teacher, None, &looked_at, &mut noise);
        let (Some((kept, _)), Some(policy)) = (kept, policy) else {
            return Err(Error::failure("no method was tried"));
        };
        Ok(Outcome { config, rows, kept, stray_of_ten, episodes, policy })
    }

    /// One student from its start to its end.
    fn learn(&mut self, method: Method, states: &mut States<'_>) -> Result<VelocityNet> {
        let course = Course::new(self.options.updates);
        let mut weights = Noise::new(self.options.seed, STREAM_WEIGHTS);
        let mut teacher = self.teacher.clone();
        let mut hidden = teacher.net.shape().hidden;
        hidden.width = self.options.width.unwrap_or(hidden.width);
        let mut learner: Box<dyn Learner + '_> = match method {
            Method::MeanVelocity => Box::new(MeanVelocity::new(&mut teacher, hidden, &course, &mut weights)),
            _ => Box::new(Head::new(&mut teacher, hidden, &course, &mut weights)),
        };
        let mut noise = Noise::new(self.options.seed, STREAM_UPDATES);
        for update in 0..course.updates {
            let each = course.updates.div_ceil(course.rounds);
            if update > 0 && update.is_multiple_of(each) {
                let student = self.own.one_step(&learner.one_step(), false)?;
                self.gather(states, &student, update / each)?;
            }
            if self.stop.load(Ordering::SeqCst) {
                return Err(Error::Interrupted("stopped: the run is as it was".to_string()));
            }
            let loss = learner.update(states.draw(&mut noise), course.rate(update), &mut noise);
            if !loss.is_finite() {
                return Err(Error::failure(format!(
                    "learning by {} diverged at update {update}: try the other --method, or distil a run that is trained \
                     longer",
                    method.name()
                )));
            }
        }
        Ok(learner.one_step())
    }

    /// Plays episodes to learn from.
    fn gather(&mut self, states: &mut States<'_>, policy: &ArtefactBytes, round: u64) -> Result<()> {
        let mut player = ArtefactPlayer::new(policy.artefact()?)?;
        let seed = PLAYED + (self.options.seed << 8) + round;
        states.add(&record(&mut player, &mut self.env, Course::new(self.options.updates).episodes, seed)?);
        Ok(())
    }

    fn play(&mut self, policy: &ArtefactBytes, which: (usize, u64)) -> Result<Evaluation> {
        play(policy, &mut self.env, which, self.stop)
    }
}
