//! One run in its folder: training with evaluations and checkpoints along the way, the files it leaves, how it ends, and
//! how it goes on.
//!
//! The folder is complete at every evaluation: policy, curve and table are replaced atomically; the final policy tells
//! what other numbers of steps return, in its step table. A checkpoint holds the
//! trainer and what the session keeps itself (its book), so a run that was killed goes on from its newest one and ends
//! with the bits of a run that was never stopped; what stands in the folder from after the checkpoint is made again.
//! What a person sees of a run goes through a [`Reporter`], so a run in a terminal and one of several side by side are
//! the same run.

use crate::checkpoint::{self, Checkpoint};
use crate::config::Config;
use crate::curve::write_curve;
use crate::env::Decision;
use crate::evaluate::{AgentPlayer, ArtefactPlayer, AssistedPlayer, Evaluation, Player, Protocol, evaluate_until};
use crate::policy::ArtefactBytes;
use crate::profile::step_table;
use crate::run::{ProgressRow, RunDir, write_atomic, write_progress};
use crate::stats::{Scores, Summary};
use crate::tensorboard::{self, EventFile};
use crate::train::{Observer, Progress, Trainer, View};
use crate::{Error, Result};
use flowlet::policy::StepEntry;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The evaluation seed: start states that training does not depend on, the same for every run.
pub const EVALUATION_SEED: u64 = 0;

/// Tells a person how a run goes.
pub trait Reporter {
    /// A block is done; `last` is the return of the last episode that ended in it.
    fn block(&mut self, progress: &Progress, last: Option<f64>);
    /// An evaluation is done.
    fn evaluated(&mut self, progress: &Progress, evaluation: &Evaluation);
    /// A checkpoint is on the disk.
    fn saved(&mut self, _progress: &Progress, _path: &Path) {}
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

/// What a session keeps beside the trainer; it travels in the checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Book {
    /// The untrained policy.
    before: Evaluation,
    /// The trained policy, once the run is finished.
    after: Option<Evaluation>,
    /// The rows of `progress.csv`.
    rows: Vec<ProgressRow>,
    /// Returns of the training episodes since the last row.
    recent: Vec<f64>,
    /// Control steps at which the next evaluation along the way is due.
    next_evaluation: u64,
}

impl Book {
    /// Steps after `steps` at which something is due that is due every so often.
    fn next(steps: u64, every: u64) -> u64 {
        steps - steps % every + every
    }
}

/// A run under way.
pub struct Session<'a> {
    config: Config,
    run: RunDir,
    book: Book,
    /// The checkpoints to keep with their control steps, the newest last: two at most. Of the last it is known that it is
    /// good.
    saved: Vec<(u64, PathBuf)>,
    interrupted: Arc<AtomicBool>,
    reporter: &'a mut dyn Reporter,
    failed: Option<Error>,
    /// What went wrong in episodes, as far as it was told.
    faults: Vec<&'static str>,
    /// Returns of the final policy by number of steps; empty before the end.
    steps: Vec<StepEntry>,
    /// TensorBoard's file, where it is asked for.
    events: Option<EventFile>,
    /// Keeps other processes out of the folder.
    _lock: Option<File>,
}

impl<'a> Session<'a> {
    /// Runs a configuration from its beginning to its end in the folder `out` (a new one under `runs/` where none is
    /// given).
    pub fn train(
        config: &Config,
        out: Option<&Path>,
        interrupted: Arc<AtomicBool>,
        reporter: &'a mut dyn Reporter,
    ) -> Result<Outcome> {
        let trainer = fresh(config)?;
        let run = RunDir::create(out, config)?;
        let lock = run.lock()?;
        reporter.note(&format!(
            "training {} on {}, seed {}, {} control steps, into {}",
            config.algo(),
            config.env.name,
            config.seed,
            config.total_timesteps,
            run.path().display()
        ));
        Self::new(config, run, lock, interrupted, reporter).begin(trainer)
    }

    /// Goes on with the run in the folder `path`, to `total` control steps where that is given.
    ///
    /// A run that is finished, and is not to become longer, tells its result and changes nothing.
    pub fn resume(
        path: &Path,
        total: Option<u64>,
        interrupted: Arc<AtomicBool>,
        reporter: &'a mut dyn Reporter,
    ) -> Result<Outcome> {
        let run = RunDir::open(path)?;
        let lock = run.lock()?;
        let asked = run.config(None)?.total_timesteps;
        let config = run.config(total)?;
        let found = checkpoint::newest(&run.checkpoints())?;
        for damaged in &found.damaged {
            reporter.note(&format!("warning: {damaged}: the one before it is taken"));
        }
        let Some(mut checkpoint) = found.newest else {
            run.clean();
            let trainer = fresh(&config)?;
            run.set_config(&config)?;
            reporter.note(&format!("{} has no checkpoint yet: it starts again from its config.toml", path.display()));
            return Self::new(&config, run, lock, interrupted, reporter).begin(trainer);
        };
        let book = book_of(&checkpoint, &config)?;
        let reached = checkpoint.timesteps;
        check_total(path, total, asked, reached)?;
        let mut trainer = Trainer::new(&config)?;
        let same = checkpoint.restore(&mut trainer)?;
        if book.after.is_some() && config.total_timesteps <= reached {
            reporter.note(&format!("{} is finished: nothing is changed", path.display()));
            return Self { book, ..Self::new(&config, run, lock, interrupted, reporter) }.outcome(&trainer);
        }
        if !same {
            reporter.note(&format!(
                "warning: {} does not repeat an episode: the run goes on, and not with the bits it would have had",
                config.env.name
            ));
        }
        run.clean();
        run.set_config(&config)?;
        // A run with a result is finished, and this one is not any more.
        let _ = std::fs::remove_file(run.file("evaluation.json"));
        reporter.note(&format!(
            "resuming {} on {}, seed {}, at {reached} of {} control steps, in {}",
            config.algo(),
            config.env.name,
            config.seed,
            config.total_timesteps,
            path.display()
        ));
        let saved = found.older.map(|older| (0, older)).into_iter().chain([(reached, checkpoint.path)]).collect();
        let book = Book { after: None, ..book };
        let session = Self { book, saved, ..Self::new(&config, run, lock, interrupted, reporter) };
        session.publish(&trainer)?;
        session.finish(trainer)
    }

    fn new(
        config: &Config,
        run: RunDir,
        lock: Option<File>,
        interrupted: Arc<AtomicBool>,
        reporter: &'a mut dyn Reporter,
    ) -> Self {
        if config.total_timesteps / config.env.action_repeat as u64 <= config.train().learning_starts {
            reporter.note(&format!(
                "warning: the run ends before {}.learning_starts = {} decisions, so nothing is learned: lower it or train \
                 longer",
                config.algo(),
                config.train().learning_starts
            ));
        }
        let before = Evaluation { returns: Vec::new(), best_of: None, ways: Vec::new(), best_of_ways: Vec::new() };
        let book =
            Book { before, after: None, rows: Vec::new(), recent: Vec::new(), next_evaluation: config.eval.every };
        Self {
            config: config.clone(),
            run,
            book,
            saved: Vec::new(),
            interrupted,
            reporter,
            failed: None,
            faults: Vec::new(),
            steps: Vec::new(),
            events: None,
            _lock: lock,
        }
    }

    /// Evaluates the untrained policy and trains.
    fn begin(mut self, mut trainer: Trainer) -> Result<Outcome> {
        self.book.before = match self.assess(&mut trainer, self.config.eval.episodes) {
            Err(Error::Interrupted(_)) => return Err(self.stopped(&trainer)),
            done => done?,
        };
        let before = self.book.before.clone();
        self.reporter.note(&format!("untrained: {}", describe(&before, &greedy(&self.config))));
        self.record(&trainer, &before)?;
        self.finish(trainer)
    }

    /// Trains to the end, evaluates and writes what a finished run leaves.
    fn finish(mut self, mut trainer: Trainer) -> Result<Outcome> {
        // What was due when the checkpoint was written, and was broken off.
        let due = if self.is_due(trainer.progress()) { self.look(&mut trainer) } else { Ok(()) };
        let trained = due.and_then(|()| trainer.run(&mut self));
        if let Some(warning) = warning(&trainer) {
            self.reporter.note(&warning);
        }
        let finished = match trained.and_then(|finished| self.failed.take().map_or(Ok(finished), Err)) {
            Err(Error::Interrupted(_)) => false,
            Err(error) => return Err(self.fail(&mut trainer, error)),
            Ok(finished) => finished,
        };
        if self.saved_at() != Some(trainer.progress().steps) {
            self.save(&mut trainer)?;
        }
        self.write_policy(&trainer)?;
        if !finished {
            return Err(self.stopped(&trainer));
        }
        let after = match self.assess(&mut trainer, self.config.eval.episodes) {
            Err(Error::Interrupted(_)) => return Err(self.stopped(&trainer)),
            done => done?,
        };
        self.steps = match self.count_steps(&trainer, &after) {
            Err(Error::Interrupted(_)) => return Err(self.stopped(&trainer)),
            done => done?,
        };
        self.record(&trainer, &after)?;
        self.book.next_evaluation = Book::next(trainer.progress().steps, self.config.eval.every);
        let progress = trainer.progress().clone();
        let text = evaluation_json(&self.config, &progress, &after).to_string();
        write_atomic(&self.run.file("evaluation.json"), text.as_bytes())?;
        self.book.after = Some(after);
        // Once more, with the result.
        self.save(&mut trainer)?;
        self.outcome(&trainer)
    }

    /// What a finished run has to tell.
    fn outcome(self, trainer: &Trainer) -> Result<Outcome> {
        let policy_bytes = artefact(trainer)?.map(|_| std::fs::metadata(self.run.file("policy.flw")));
        let policy_bytes = policy_bytes.and_then(std::result::Result::ok).map(|file| file.len() as usize);
        let (before, progress) = (self.book.before, trainer.progress().clone());
        let after = self.book.after.unwrap_or_else(|| before.clone());
        Ok(Outcome { config: self.config, run: self.run, progress, before, after, policy_bytes })
    }

    /// Saves everything it takes to go on, then forgets all but the newest two checkpoints.
    fn save(&mut self, trainer: &mut Trainer) -> Result<()> {
        let book =
            toml::to_string(&self.book).map_err(|e| Error::failure(format!("cannot encode a checkpoint: {e}")))?;
        let folder = self.run.checkpoints();
        let path = checkpoint::save(&folder, trainer, &book)?;
        self.reporter.saved(trainer.progress(), &path);
        self.saved.retain(|(_, older)| *older != path);
        self.saved.push((trainer.progress().steps, path));
        self.saved.drain(..self.saved.len().saturating_sub(2));
        checkpoint::prune(&folder, self.saved.iter().map(|(_, path)| path.as_path()))
    }

    /// Where training stood at the newest checkpoint.
    fn saved_at(&self) -> Option<u64> {
        self.saved.last().map(|(steps, _)| *steps)
    }

    /// The error of a run that was broken off: it can be resumed.
    fn stopped(&self, trainer: &Trainer) -> Error {
        let progress = trainer.progress();
        Error::Interrupted(format!(
            "stopped at {} of {} control steps: type `cargo run --release -p host-train -- resume {}` to go on",
            progress.steps,
            progress.total,
            self.run.path().display()
        ))
    }

    /// Keeps what a run that failed has reached, and says so. The error stays the first one.
    fn fail(&mut self, trainer: &mut Trainer, error: Error) -> Error {
        if trainer.can_go_on() && self.saved_at() != Some(trainer.progress().steps) {
            // A full disk may have been the first error: then this is the same one again.
            let _ = self.save(trainer);
        }
        if let Some((_, path)) = self.saved.last() {
            self.reporter.note(&format!("the newest checkpoint is {}", path.display()));
        }
        error
    }

    /// Plays `episodes` episodes with the policy as it is.
    fn assess(&self, trainer: &mut Trainer, episodes: usize) -> Result<Evaluation> {
        let config = &self.config;
        let mut env = Decision::new(config.make_env()?, config.env.action_repeat);
        let protocol = Protocol { episodes, seed: EVALUATION_SEED, best_of: config.eval.best_of };
        let (bytes, normaliser) = (artefact(trainer)?, trainer.normaliser().clone());
        let mut agent = AgentPlayer::new(trainer.agent_mut(), &normaliser, &env);
        let mut play = |player: &mut dyn Player| evaluate_until(player, &mut env, protocol, &self.interrupted);
        let Some(bytes) = bytes else { return play(&mut agent) };
        let mut plain = ArtefactPlayer::new(bytes.artefact()?)?;
        if plain.is_critical() { play(&mut plain) } else { play(&mut AssistedPlayer { plain, greedy: agent }) }
    }

    fn write_policy(&self, trainer: &Trainer) -> Result<()> {
        match artefact(trainer)? {
            Some(bytes) => write_atomic(&self.run.file("policy.flw"), bytes.with_step_table(&self.steps)?.as_slice()),
            None => Ok(()),
        }
    }

    /// Plays the episodes of the final evaluation with the other usual numbers of steps: a few evaluations of the network a
    /// decision beside those of the greedy choice.
    fn count_steps(&self, trainer: &Trainer, after: &Evaluation) -> Result<Vec<StepEntry>> {
        let config = &self.config;
        let Some(bytes) = artefact(trainer)? else { return Ok(Vec::new()) };
        let own = bytes.artefact()?.plan().steps;
        let mut env = Decision::new(config.make_env()?, config.env.action_repeat);
        let protocol = Protocol { episodes: config.eval.episodes, seed: EVALUATION_SEED, best_of: 1 };
        step_table(&bytes, &mut env, protocol, &[(own, after.plain())], &self.interrupted)
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
            train_return: Summary::of(&self.book.recent).mean,
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
        self.book.rows.push(row);
        self.book.recent.clear();
        self.log(&row)?;
        self.publish(trainer)
    }

    /// Adds a row to TensorBoard's file. A session's first row starts the file anew with all rows so far: what a run that was
    /// killed had logged beyond its checkpoint is gone.
    fn log(&mut self, row: &ProgressRow) -> Result<()> {
        if !self.config.tensorboard {
            return Ok(());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
        if let Some(events) = &mut self.events {
            return row
                .scalars()
                .into_iter()
                .try_for_each(|(tag, value)| events.scalar(tag, row.timesteps, value, now));
        }
        tensorboard::clear(self.run.path())?;
        let events = self.events.insert(EventFile::create(self.run.path(), now)?);
        for row in &self.book.rows {
            row.scalars().into_iter().try_for_each(|(tag, value)| events.scalar(tag, row.timesteps, value, now))?;
        }
        Ok(())
    }

    /// Writes policy, table and curve as they are now.
    fn publish(&self, trainer: &Trainer) -> Result<()> {
        self.write_policy(trainer)?;
        write_progress(&self.run, &self.book.rows)?;
        let config = &self.config;
        let title = format!("{}, {}, seed {}", config.env.name, config.algo(), config.seed);
        write_curve(&self.run.file("curve.svg"), &title, &greedy(config), &self.book.rows)
    }

    /// Whether an evaluation along the way is due.
    fn is_due(&self, progress: &Progress) -> bool {
        progress.steps >= self.book.next_evaluation && progress.steps < progress.total
    }

    /// An evaluation along the way.
    fn look(&mut self, trainer: &mut Trainer) -> Result<()> {
        let evaluation = self.assess(trainer, self.config.eval.curve_episodes)?;
        self.book.next_evaluation = Book::next(trainer.progress().steps, self.config.eval.every);
        self.record(trainer, &evaluation)?;
        self.reporter.evaluated(trainer.progress(), &evaluation);
        Ok(())
    }
}

impl Observer for Session<'_> {
    fn block(&mut self, View { progress, episodes, trainer }: View<'_>) -> ControlFlow<()> {
        self.book.recent.extend(episodes.iter().map(|e| e.episode_return));
        self.reporter.block(progress, episodes.last().map(|e| e.episode_return));
        if let Some(fault) = episodes.iter().filter_map(|e| e.fault).find(|fault| !self.faults.contains(fault)) {
            self.faults.push(fault);
            self.reporter.note(&format!(
                "an episode {fault}; such episodes end there, worth nothing more, and training goes on: this is told once"
            ));
        }
        let mut done = if self.is_due(progress) { self.look(trainer) } else { Ok(()) };
        // The end of the run has a checkpoint of its own.
        let due = Book::next(self.saved_at().unwrap_or(0), self.config.checkpoint_every);
        if done.is_ok() && progress.steps >= due && progress.steps < progress.total {
            done = self.save(trainer);
        }
        if let Err(error) = done {
            self.failed = Some(error);
            return ControlFlow::Break(());
        }
        if self.interrupted.load(Ordering::SeqCst) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Whether [`Session::resume`] could go on with the run in `path`, as far as its files tell; changes nothing.
pub fn check_resume(path: &Path, total: Option<u64>) -> Result<()> {
    let run = RunDir::open(path)?;
    let asked = run.config(None)?.total_timesteps;
    let config = run.config(total)?;
    let Some(checkpoint) = checkpoint::newest(&run.checkpoints())?.newest else { return Ok(()) };
    book_of(&checkpoint, &config)?;
    check_total(path, total, asked, checkpoint.timesteps)
}

/// Refuses to make a run shorter than what it has behind it.
fn check_total(path: &Path, total: Option<u64>, asked: u64, reached: u64) -> Result<()> {
    if total.is_some_and(|total| total < reached && total != asked) {
        return Err(Error::usage(format!(
            "{} has {reached} control steps behind it: give --total-timesteps more than that, or none",
            path.display()
        )));
    }
    Ok(())
}

/// A trainer at the beginning, with a policy that can be exported: before a folder is made for it.
fn fresh(config: &Config) -> Result<Trainer> {
    let mut trainer = Trainer::new(config)?;
    trainer.warm_start()?;
    artefact(&trainer)?;
    Ok(trainer)
}

/// Whether a run that stands at this checkpoint has its result, and has no further to go.
pub fn is_finished(checkpoint: &Checkpoint, config: &Config) -> bool {
    book_of(checkpoint, config).is_ok_and(|book| book.after.is_some()) && config.total_timesteps <= checkpoint.timesteps
}

/// What the session of a checkpoint kept, where the checkpoint is of this run.
fn book_of(checkpoint: &Checkpoint, config: &Config) -> Result<Book> {
    let shown = checkpoint.path.display();
    if checkpoint.algo != config.algo() {
        return Err(Error::failure(format!(
            "{shown} is a checkpoint of {} and the run's config.toml asks for {}: put back the one or the other",
            checkpoint.algo,
            config.algo()
        )));
    }
    if let Some(key) = config.difference(&Config::from_text(&checkpoint.config)?) {
        return Err(Error::failure(format!(
            "{key} in the run's config.toml is not what {shown} was trained with: put it back, or train anew with \
             `train --config`"
        )));
    }
    toml::from_str(&checkpoint.session).map_err(|_| {
        Error::failure(format!("{shown} was made by another version: resume it with the program that wrote it"))
    })
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
        "ways": evaluation.shares().map(|(single, greedy)| json!({ "single": single, "greedy": greedy })),
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

/// What the greedy choice of a configured algorithm is.
pub fn greedy(config: &Config) -> String {
    match config.algo() {
        "sac" => "mean action".to_string(),
        _ => best_of(config.eval.best_of),
    }
}

/// The greedy choice of a policy with critics.
pub fn best_of(particles: usize) -> String {
    format!("best of {particles} by the critic")
}

/// `mean return -150.1 +- 30.2 (single sample), -149.8 +- 30.1 (best of 16 by the critic), 20 episodes, 95 % interval`.
///
/// `greedy` says what the greedy choice is, as [`greedy`] does.
pub fn describe(evaluation: &Evaluation, greedy: &str) -> String {
    let interval = |s: Summary| {
        if s.ci95.is_finite() { format!("{:.1} +- {:.1}", s.mean, s.ci95) } else { format!("{:.1}", s.mean) }
    };
    let plain = evaluation.plain();
    let best = evaluation.best().map(|b| format!(", {} ({greedy})", interval(b)));
    let over = if plain.n == 1 { "1 episode".to_string() } else { format!("{} episodes, 95 % interval", plain.n) };
    let ways = evaluation.shares().map(|(single, chosen)| {
        let listed = |shares: BTreeMap<&str, f64>| {
            shares.into_iter().map(|(way, share)| format!("{way} {share:.2}")).collect::<Vec<_>>().join(" ")
        };
        format!("; ways {} (single sample), {} ({greedy})", listed(single), listed(chosen))
    });
    let (best, ways) = (best.unwrap_or_default(), ways.unwrap_or_default());
    format!("mean return {} (single sample){best}, {over}{ways}", interval(plain))
}
