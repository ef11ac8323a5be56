//! One run in its folder: training with evaluations along the way, the files it leaves, and how it ends.
//!
//! The folder is complete at every evaluation: policy, curve and table are replaced atomically, so a run that is cut off
//! keeps its last ones. What a person sees of it goes through a [`Reporter`], so a run in a terminal and one of several
//! side by side are the same run.

use crate::config::Config;
use crate::curve::write_curve;
use crate::env::Decision;
use crate::evaluate::{AgentPlayer, ArtefactPlayer, Evaluation, Protocol, evaluate_until};
use crate::policy::ArtefactBytes;
use crate::run::{ProgressFile, ProgressRow, RunDir, write_atomic};
use crate::stats::{Scores, Summary};
use crate::train::{Observer, Progress, Trainer, View};
use crate::{Error, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The evaluation seed: start states that training does not depend on, the same for every run.
pub const EVALUATION_SEED: u64 = 0;

/// Tells a person how a run goes.
pub trait Reporter {
    /// A block is done; `last` is the return of the last episode that ended in it.
    fn block(&mut self, progress: &Progress, last: Option<f64>);
    /// An evaluation is done.
    fn evaluated(&mut self, progress: &Progress, evaluation: &Evaluation);
    /// Something to be known.
    fn note(&mut self, text: &str);
}

/// What a finished run has to tell.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was configured.
    pub config: Config,
    /// The folder.
    pub run: RunDir,
    /// Where training ended.
    pub progress: Progress,
    /// The untrained policy.
    pub before: Evaluation,
    /// The trained policy.
    pub after: Evaluation,
    /// Size of `policy.flw`; none where the algorithm has no artefact.
    pub policy_bytes: Option<usize>,
}

/// A run under way.
pub struct Session<'a> {
    config: Config,
    run: RunDir,
    csv: ProgressFile,
    rows: Vec<ProgressRow>,
    /// Returns of the training episodes since the last row.
    recent: Vec<f64>,
    next_evaluation: u64,
    interrupted: Arc<AtomicBool>,
    reporter: &'a mut dyn Reporter,
    failed: Option<Error>,
}

impl<'a> Session<'a> {
    /// Runs a configuration from its beginning to its end in the folder `out` (a new one under `runs/` where none is
    /// given).
    pub fn train(
        config: &Config,
        out: Option<&std::path::Path>,
        interrupted: Arc<AtomicBool>,
        reporter: &'a mut dyn Reporter,
    ) -> Result<Outcome> {
        let mut trainer = Trainer::new(config)?;
        trainer.warm_start()?;
        // Before the folder is made: a policy that cannot be exported must not leave one.
        artefact(&trainer)?;
        let run = RunDir::create(out, config)?;
        reporter.note(&format!(
            "training {} on {}, seed {}, {} control steps, into {}",
            config.algo(),
            config.env.name,
            config.seed,
            config.total_timesteps,
            run.path().display()
        ));
        let csv = ProgressFile::create(&run)?;
        let mut session = Self {
            config: config.clone(),
            run,
            csv,
            rows: Vec::new(),
            recent: Vec::new(),
            next_evaluation: config.eval.every,
            interrupted,
            reporter,
            failed: None,
        };
        let before = session.assess(&mut trainer, config.eval.episodes)?;
        session.reporter.note(&format!("untrained: {}", describe(&before, config.eval.best_of)));
        session.record(&trainer, &before)?;
        session.finish(trainer, before)
    }

    /// Trains to the end, evaluates and writes what a finished run leaves.
    fn finish(mut self, mut trainer: Trainer, before: Evaluation) -> Result<Outcome> {
        let trained = trainer.run(&mut self);
        if let Some(warning) = warning(&trainer) {
            self.reporter.note(&warning);
        }
        let finished = trained?;
        match self.failed.take() {
            None | Some(Error::Interrupted(_)) => {}
            Some(error) => return Err(error),
        }
        self.write_policy(&trainer)?;
        let progress = trainer.progress().clone();
        if !finished {
            return Err(Error::Interrupted(format!(
                "stopped at {} of {} control steps: what there is lies in {}",
                progress.steps,
                progress.total,
                self.run.path().display()
            )));
        }
        let after = self.assess(&mut trainer, self.config.eval.episodes)?;
        self.record(&trainer, &after)?;
        let policy_bytes = artefact(&trainer)?.map(|bytes| bytes.as_slice().len());
        let text = evaluation_json(&self.config, &progress, &after).to_string();
        write_atomic(&self.run.file("evaluation.json"), text.as_bytes())?;
        Ok(Outcome { config: self.config, run: self.run, progress, before, after, policy_bytes })
    }

    /// Plays `episodes` episodes with the policy as it is.
    fn assess(&self, trainer: &mut Trainer, episodes: usize) -> Result<Evaluation> {
        let config = &self.config;
        let mut env = Decision::new(config.make_env()?, config.env.action_repeat);
        let protocol = Protocol { episodes, seed: EVALUATION_SEED, best_of: config.eval.best_of };
        match artefact(trainer)? {
            Some(bytes) => {
                let mut player = ArtefactPlayer::new(bytes.artefact()?)?;
                evaluate_until(&mut player, &mut env, protocol, &self.interrupted)
            }
            None => {
                let normaliser = trainer.normaliser().clone();
                let mut player = AgentPlayer::new(trainer.agent_mut(), &normaliser, &env);
                evaluate_until(&mut player, &mut env, protocol, &self.interrupted)
            }
        }
    }

    fn write_policy(&self, trainer: &Trainer) -> Result<()> {
        match artefact(trainer)? {
            Some(bytes) => write_atomic(&self.run.file("policy.flw"), bytes.as_slice()),
            None => Ok(()),
        }
    }

    /// Writes what an evaluation found: policy, table and curve.
    fn record(&mut self, trainer: &Trainer, evaluation: &Evaluation) -> Result<()> {
        let progress = trainer.progress();
        let (plain, best, last) = (evaluation.plain(), evaluation.best(), &progress.last);
        // Before the first update there is nothing to report of one.
        let known = |value: f32| if progress.updates > 0 { f64::from(value) } else { f64::NAN };
        let row = ProgressRow {
            timesteps: progress.steps,
            decisions: progress.decisions,
            updates: progress.updates,
            cpu_seconds: progress.cpu_seconds,
            train_return: Summary::of(&self.recent).mean,
            return_mean: plain.mean,
            return_ci95: plain.ci95,
            return_best_of: best.map_or(f64::NAN, |b| b.mean),
            critic_loss: known(last.critic_loss),
            actor_loss: known(last.actor_loss),
            q_mean: known(last.q_mean),
            ess: known(last.ess),
            entropy: known(last.entropy),
            temperature: known(last.lambda),
            grad_norm: known(last.grad_norm),
        };
        self.recent.clear();
        self.write_policy(trainer)?;
        self.csv.write(&row)?;
        self.rows.push(row);
        let config = &self.config;
        let title = format!("{}, {}, seed {}", config.env.name, config.algo(), config.seed);
        write_curve(&self.run.file("curve.svg"), &title, config.eval.best_of, &self.rows)
    }

    /// An evaluation along the way.
    fn look(&mut self, trainer: &mut Trainer) -> Result<()> {
        let evaluation = self.assess(trainer, self.config.eval.curve_episodes)?;
        self.record(trainer, &evaluation)?;
        self.reporter.evaluated(trainer.progress(), &evaluation);
        Ok(())
    }
}

impl Observer for Session<'_> {
    fn block(&mut self, View { progress, episodes, trainer }: View<'_>) -> ControlFlow<()> {
        self.recent.extend(episodes.iter().map(|e| e.episode_return));
        self.reporter.block(progress, episodes.last().map(|e| e.episode_return));
        if progress.steps >= self.next_evaluation && progress.steps < progress.total {
            self.next_evaluation = progress.steps - progress.steps % self.config.eval.every + self.config.eval.every;
            if let Err(error) = self.look(trainer) {
                self.failed = Some(error);
                return ControlFlow::Break(());
            }
        }
        if self.interrupted.load(Ordering::SeqCst) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// The content of `evaluation.json`: the last evaluation, episode by episode, with bootstrap intervals over episodes.
fn evaluation_json(config: &Config, progress: &Progress, evaluation: &Evaluation) -> Value {
    let side = |returns: &[f64]| {
        let scores = Scores::of(returns);
        let ci95 = scores.mean_interval.is_known().then_some([scores.mean_interval.low, scores.mean_interval.high]);
        json!({
            "mean": scores.mean,
            "iqm": scores.iqm,
            "ci95": ci95,
            "min": scores.min,
            "max": scores.max,
            "returns": returns,
        })
    };
    json!({
        "env": config.env.name,
        "algo": config.algo(),
        "preset": config.preset,
        "seed": config.seed,
        "timesteps": progress.steps,
        "updates": progress.updates,
        "cpu_seconds": progress.cpu_seconds,
        "episodes": evaluation.returns.len(),
        "best_of": config.eval.best_of,
        "single": side(&evaluation.returns),
        "greedy": evaluation.best_of.as_deref().map(side),
    })
}

/// The artefact of what is trained; none where the algorithm has none.
pub fn artefact(trainer: &Trainer) -> Result<Option<ArtefactBytes>> {
    let agent = trainer.agent().as_rfm();
    agent.map(|agent| ArtefactBytes::of_agent(trainer.config(), agent, trainer.normaliser())).transpose()
}

/// What to say of posterior means that were refused; nothing when none was.
fn warning(trainer: &Trainer) -> Option<String> {
    let progress = trainer.progress();
    let of = progress.updates * trainer.agent().as_rfm()?.config().actor_batch as u64;
    (progress.refused > 0).then(|| {
        format!(
            "warning: {} of {of} posterior means were refused, for the critic was not finite there: the policy's own \
             sample took their place, and the actor learnt nothing from them",
            progress.refused
        )
    })
}

/// `mean return -150.1 +- 30.2 (single sample), -149.8 +- 30.1 (best of 16 by the critic), 20 episodes, 95 % interval`.
pub fn describe(evaluation: &Evaluation, best_of: usize) -> String {
    let interval = |s: Summary| {
        if s.ci95.is_finite() { format!("{:.1} +- {:.1}", s.mean, s.ci95) } else { format!("{:.1}", s.mean) }
    };
    let plain = evaluation.plain();
    let best = evaluation.best().map(|b| format!(", {} (best of {best_of} by the critic)", interval(b)));
    let over = if plain.n == 1 { "1 episode".to_string() } else { format!("{} episodes, 95 % interval", plain.n) };
    let ways = evaluation.shares().map(|(single, greedy)| {
        let listed = |shares: BTreeMap<&str, f64>| {
            shares.into_iter().map(|(way, share)| format!("{way} {share:.2}")).collect::<Vec<_>>().join(" ")
        };
        format!("; ways {} (single sample), {} (best of {best_of})", listed(single), listed(greedy))
    });
    let (best, ways) = (best.unwrap_or_default(), ways.unwrap_or_default());
    format!("mean return {} (single sample){best}, {over}{ways}", interval(plain))
}
