//! One-step policies from a trained run: two ways to learn them, their returns against ten steps, and the better one as an
//! ordinary artefact.
//!
//! A flow policy carries noise x_0 to a latent along an ODE. Here a network learns to do that in one evaluation,
//! x_0 + u(x_0, s): [`head`] regresses it on where ten Euler steps end, [`mean_velocity`] learns the mean of the velocity
//! from Reverse Flow Matching's own target. Both learn at states of the run's replay buffer and of episodes that the flow
//! and then the student itself play ([`Course::rounds`]), so that they are right where they lead. `auto` learns both
//! and keeps the distilled head, which follows the trained flow, unless the other returns clearly more in validation
//! episodes; the losses that are reported are of other episodes, which no choice has seen.
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
use crate::profile::entry;
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
    /// Both, and keep the first of these unless the second is clearly better
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

/// Whether a policy returned more than another in paired episodes, beyond the 95 % interval of the mean difference.
fn clearly_better(policy: &Evaluation, other: &Evaluation) -> bool {
    let gains: Vec<f64> = policy.returns.iter().zip(&other.returns).map(|(own, other)| own - other).collect();
    let gain = Summary::of(&gains);
    gain.mean - gain.ci95 > 0.0
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
        rows.push(row(
            &format!("own plan, {} {} steps", plan.steps, plan.solver.name()),
            self.play(&self.own.clone(), test)?,
        ));
        rows.push(row("one plain Euler step", self.play(&one, test)?));
        let mut noise = Noise::new(options.seed, STREAM_STRAY);
        let obs = self.env.spec().obs();
        let looked_at: Vec<f32> = (0..LOOKED_AT)
            .flat_map(|_| {
                let at = noise.below(states.played().len() / obs) * obs;
                states.played()[at..at + obs].to_vec()
            })
            .collect();
        let mut kept = None::<(usize, Evaluation, ArtefactBytes)>;
        for (name, bytes, net, cpu_seconds) in candidates {
            let played = self.play(&bytes, validation)?;
            let validated = loss(&played, &ten_v, &random_v);
            if kept.as_ref().is_none_or(|(_, best, _)| clearly_better(&played, best)) {
                kept = Some((rows.len(), played, bytes.clone()));
            }
            let stray = Some(stray(&mut self.teacher, Some(&net), &looked_at, &mut noise));
            rows.push(Row { validation: Some(validated), stray, cpu_seconds, ..row(name, self.play(&bytes, test)?) });
        }
        let stray_of_ten = stray(&mut self.teacher, None, &looked_at, &mut noise);
        let Some((kept, _, policy)) = kept else {
            return Err(Error::failure("no method was tried"));
        };
        let policy = policy.with_step_table(&[entry(1, &rows[kept].test.plain())])?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::rfm::Rfm;
    use crate::config::{RfmConfig, Sources};
    use crate::nn::critic::TwinCritic;
    use crate::nn::elementwise::tanh_of;
    use crate::nn::hidden::Hidden;
    use crate::normaliser::Normaliser;
    use crate::replay::{Replay, Transition};
    use crate::run::write_atomic;
    use crate::session::{Reporter, Session};
    use crate::train::Progress;
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::sync::Arc;

    /// A teacher in one state channel and one action whose networks are then overwritten.
    fn teacher(config: &RfmConfig) -> Teacher {
        Teacher::of(&Rfm::new(config, 1, 1, 1)).unwrap()
    }

    fn small() -> RfmConfig {
        let mut config = RfmConfig::standard();
        (config.train.actor_hidden, config.train.critic_hidden) = (16, 16);
        config
    }

    /// States of (-1, 1).
    fn replay() -> Replay {
        let mut replay = Replay::with_normaliser(500, Normaliser::identity(1), 1);
        let mut noise = Noise::new(7, 0);
        for _ in 0..500 {
            let s = [2.0 * noise.uniform() - 1.0];
            replay.push(Transition {
                obs: &s,
                action: &[0.0],
                reward: 0.0,
                next_obs: &s,
                terminated: false,
                last: true,
            });
        }
        replay
    }

    fn learn(learner: &mut dyn Learner, course: &Course) -> VelocityNet {
        let replay = replay();
        let mut states = States::new(&replay, course.batch, 1);
        let mut noise = Noise::new(3, 0);
        for update in 0..course.updates {
            learner.update(states.draw(&mut noise), course.rate(update), &mut noise);
        }
        learner.one_step()
    }

    /// Root of the mean squared difference between the actions of a one-step network and those of a map.
    fn error(config: &RfmConfig, net: &VelocityNet, wanted: impl Fn(f64, f64) -> f64) -> f64 {
        let n = 4_000;
        let mut noise = Noise::new(5, 0);
        let (mut s, mut start) = (vec![0.0; n], vec![0.0; n]);
        noise.uniform_in(&mut s, -1.0, 1.0);
        noise.gaussian(&mut start);
        let (mut u, mut a) = (start.clone(), start.clone());
        teacher::one_step(config, net.shape()).integrate(net, &s, 1, &mut u);
        tanh_of(&mut a, &u);
        let squares = a.iter().zip(s.iter().zip(&start));
        let squares = squares.map(|(a, (s, x))| (f64::from(*a) - wanted(f64::from(*s), f64::from(*x))).powi(2));
        (squares.sum::<f64>() / n as f64).sqrt()
    }

    /// v = -1.8 x + 2 s: ten Euler steps of a tenth are a linear map.
    #[test]
    fn the_distilled_head_finds_a_linear_map() {
        let config = small();
        let mut teacher = teacher(&config);
        let (k, c, h) = (-1.8, 2.0, 16);
        let params = teacher.net.params_mut();
        params.fill(0.0);
        // Units 0 to 3 of the first layer are the positive and negative parts of x and s; the second hands them on.
        let inputs = 2 + 2 * config.frequencies.len();
        for (unit, (input, sign)) in [(1, 1.0), (1, -1.0), (0, 1.0), (0, -1.0)].into_iter().enumerate() {
            params[input * h + unit] = sign;
            let second = (inputs + 1) * h;
            params[second + unit * h + unit] = 1.0;
            params[second + (h + 1) * h + unit] = sign * if input == 1 { k } else { c };
        }
        let q = 1.0 + 0.1 * f64::from(k);
        let shift = f64::from(c) * 0.1 * (1.0 - q.powi(10)) / (1.0 - q);
        let wanted = |s: f64, x: f64| (q.powi(10) * x + shift * s).tanh();
        let (mut s, mut u) = (vec![0.5], vec![1.0]);
        teacher.carry(&s, &mut u);
        assert!((f64::from(u[0].tanh()) - wanted(0.5, 1.0)).abs() < 1e-5);
        s[0] = 0.0;

        let course = Course { batch: 128, ..Course::new(1_500) };
        let plain = error(&config, &teacher.net.held(0.0, &[]), wanted);
        // From the teacher's weights, and from fresh ones of another width, which have farther to go.
        for width in [16, 24] {
            let hidden = Hidden { width, ..teacher.net.shape().hidden };
            let net = learn(&mut Head::new(&mut teacher, hidden, &course, &mut Noise::new(1, 0)), &course);
            let found = error(&config, &net, wanted);
            // A fiftieth of the half range of an action; one plain Euler step is far off.
            assert!(found < 0.02 && plain > 0.2, "{width}: {found}, plain {plain}");
        }
    }

    /// Q = kappa lambda a, whose Boltzmann density has the distribution function (e^(kappa a) - e^-kappa) / (e^kappa -
    /// e^-kappa). In one dimension a flow keeps the order of points, so it carries x_0 to the quantile that x_0 has.
    #[test]
    fn the_mean_velocity_finds_the_quantiles_of_a_boltzmann_density() {
        let config = small();
        let mut teacher = teacher(&config);
        let (kappa, h) = (2.0f64, 16);
        let mut critic = TwinCritic::new(*teacher.critic.shape(), 1.0, &mut Noise::new(0, 0));
        critic.params_mut().fill(0.0);
        let params = teacher.critic.shape().params();
        for one in critic.params_mut().chunks_exact_mut(params) {
            for (unit, sign) in [1.0f32, -1.0].into_iter().enumerate() {
                one[h + unit] = sign;
                one[3 * h + unit * h + unit] = 1.0;
                one[3 * h + (h + 1) * h + unit] = sign * kappa as f32 * teacher.lambda;
            }
        }
        teacher.critic = critic;
        let wanted = |_: f64, x: f64| {
            let share = normal_below(x);
            ((-kappa).exp() + share * (kappa.exp() - (-kappa).exp())).ln() / kappa
        };
        let course = Course { batch: 128, ..Course::new(2_500) };
        let hidden = teacher.net.shape().hidden;
        let untaught = error(&config, &teacher.net.held(0.0, &[]), wanted);
        let net = learn(&mut MeanVelocity::new(&mut teacher, hidden, &course, &mut Noise::new(1, 0)), &course);
        let found = error(&config, &net, wanted);
        // The target is an estimate from 32 candidates: its noise and the bias of self-normalised weights remain.
        assert!(found < 0.06 && untaught > 0.3, "{found}, untaught {untaught}");
    }

    /// P(X < x) of a standard normal X, by Simpson's rule.
    fn normal_below(x: f64) -> f64 {
        let density = |z: f64| (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let (n, from) = (400, -9.0);
        let width = (x - from) / f64::from(n);
        let weight = |i: i32| {
            if i == 0 || i == n {
                1.0
            } else if i % 2 == 1 {
                4.0
            } else {
                2.0
            }
        };
        (0..=n).map(|i| weight(i) * density(from + width * f64::from(i))).sum::<f64>() * width / 3.0
    }

    struct Silent;

    impl Reporter for Silent {
        fn block(&mut self, _: &Progress, _: Option<f64>) {}
        fn evaluated(&mut self, _: &Progress, _: &Evaluation) {}
        fn note(&mut self, _: &str) {}
    }

    fn run(folder: &Path, algo: &str) -> RunDir {
        let short = ["total_timesteps=1200", "eval.episodes=1", "env.action_repeat=4"].map(String::from);
        let sources = Sources { algo: Some(algo), env: Some("pendulum"), set: &short, ..Sources::default() };
        let config = Config::resolve(&sources).unwrap();
        Session::train(&config, Some(folder), Arc::default(), &mut Silent).unwrap().run
    }

    fn contents(folder: &Path) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
        let mut all = BTreeMap::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                all.extend(contents(&path));
            } else {
                all.insert(path.clone(), std::fs::read(path).unwrap());
            }
        }
        all
    }

    #[test]
    fn only_a_clear_gain_changes_the_choice() {
        let played = |returns: &[f64]| Evaluation {
            returns: returns.to_vec(),
            best_of: None,
            ways: Vec::new(),
            best_of_ways: Vec::new(),
        };
        let head = played(&[1.0, 5.0, 9.0, 13.0]);
        assert!(clearly_better(&played(&[2.0, 6.1, 10.0, 14.1]), &head));
        for other in [[1.0, 5.0, 9.0, 13.0], [0.0, 4.0, 8.0, 12.0], [1.0, 5.0, 9.0, 17.0]] {
            assert!(!clearly_better(&played(&other), &head), "{other:?}");
        }
    }

    #[test]
    fn a_run_is_only_read_and_the_result_is_repeatable() {
        let root = tempfile::tempdir().unwrap();
        let run = run(&root.path().join("r"), "rfm");
        let before = contents(run.path());
        let options = Options { method: Method::Auto, updates: 20, seed: 3, episodes: 2, width: None };
        let go = |options: &Options| distill(&run, options, &AtomicBool::new(false), &mut |_| {}).unwrap();
        let (one, two) = (go(&options), go(&options));
        assert_eq!(one.policy.as_slice(), two.policy.as_slice());
        let losses = |o: &Outcome| o.rows.iter().map(|r| (r.name.clone(), r.test.clone())).collect::<Vec<_>>();
        assert_eq!((losses(&one), one.kept), (losses(&two), two.kept));
        assert_eq!(contents(run.path()), before);
        // An ordinary artefact of one step and no time, with the critics of the run.
        let view = one.policy.artefact().unwrap();
        let shape = *view.velocity().shape();
        assert_eq!((view.plan().steps, shape.frequencies, shape.hidden, view.critics().count()), (1, 0, 64, 2));
        crate::policy::HostPolicy::new(view).unwrap().self_test().unwrap();
        // What it is worth is what `eval` finds: the rows that were not learnt are exact.
        let rows = &one.rows;
        assert_eq!(rows.len(), 6);
        assert_eq!((rows[0].loss.mean.round(), rows[1].loss.mean), (1.0, 0.0));
        let narrow = go(&Options { width: Some(24), method: Method::Distil, ..options.clone() });
        assert_eq!((narrow.policy.artefact().unwrap().velocity().shape().hidden, narrow.rows.len()), (24, 5));
        assert_ne!(go(&Options { seed: 4, ..options }).policy.as_slice(), one.policy.as_slice());
    }

    #[test]
    fn what_is_no_flow_is_refused_in_a_sentence() {
        let root = tempfile::tempdir().unwrap();
        let options = Options { method: Method::Auto, updates: 1, seed: 1, episodes: 2, width: None };
        let refusal = |run: &RunDir, stop: bool| {
            distill(run, &options, &AtomicBool::new(stop), &mut |_| {}).unwrap_err().to_string()
        };
        let sac = run(&root.path().join("sac"), "sac");
        assert!(refusal(&sac, false).contains("run of sac") && refusal(&sac, false).contains("only rfm"));
        let rfm = run(&root.path().join("rfm"), "rfm");
        assert!(refusal(&rfm, true).contains("the run is as it was"));
        for file in std::fs::read_dir(rfm.checkpoints()).unwrap() {
            write_atomic(&file.unwrap().path(), b"damaged").unwrap();
        }
        assert!(refusal(&rfm, false).contains("no checkpoint"));
    }
}
