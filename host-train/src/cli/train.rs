//! `train`, and the bare command: trains, evaluates, exports, and says what to type next.
//!
//! The run folder is complete at every evaluation along the way: policy, curve and table are replaced atomically, so
//! a run that is cut off keeps its last ones. The first Ctrl-C ends the run in good order with the work so far, the
//! second at once.

use super::{Output, TrainArgs, interrupt_flag, note};
use crate::agent::rfm::Rfm;
use crate::config::{Config, Sources};
use crate::curve::write_curve;
use crate::evaluate::{Evaluation, Protocol, env_for, evaluate_until};
use crate::policy::ArtefactBytes;
use crate::run::{ProgressFile, ProgressRow, RunDir, write_atomic};
use crate::stats::Summary;
use crate::train::{Episode, Observer, Progress, Trainer};
use crate::{Error, Result};
use cpu_time::ProcessTime;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use serde_json::json;
use std::fmt::Write;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The evaluation seed: start states that training does not depend on, the same for every run.
const EVALUATION_SEED: u64 = 0;

/// Runs the command.
pub(super) fn run(args: &TrainArgs, output: Output) -> Result<()> {
    let config = Config::resolve(&Sources {
        preset: args.preset.as_deref(),
        file: args.config.as_deref(),
        env: args.env.as_deref(),
        algo: args.algo.as_deref(),
        seed: args.seed,
        total_timesteps: args.total_timesteps,
        set: &args.set,
    })?;
    let started = ProcessTime::now();
    let interrupted = interrupt_flag()?;
    let mut trainer = Trainer::new(&config)?;
    // Before the folder is made: a policy that cannot be exported must not leave one.
    let untrained = ArtefactBytes::of_agent(&config, trainer.agent())?;
    let run = RunDir::create(args.out.as_deref(), &config)?;
    note(&format!(
        "training {} on {}, seed {}, {} control steps, into {}",
        config.algo,
        config.env.name,
        config.seed,
        config.total_timesteps,
        run.path().display()
    ));
    write_atomic(&run.file("policy.flw"), untrained.as_slice())?;
    let before = assess(&config, &untrained, config.eval.episodes, &interrupted)?;
    note(&format!("untrained: {}", describe(&before, config.eval.best_of)));

    let mut watch = Watch::new(&config, &run, Arc::clone(&interrupted))?;
    watch.record(trainer.progress(), &untrained, &before)?;
    let trained = trainer.run(&mut watch);
    watch.bar.finish_and_clear();
    if let Some(warning) = warning(trainer.progress(), config.rfm.actor_batch) {
        note(&warning);
    }
    let finished = trained?;
    match watch.failed {
        None | Some(Error::Interrupted(_)) => {}
        Some(error) => return Err(error),
    }
    let progress = trainer.progress().clone();
    let bytes = ArtefactBytes::of_agent(&config, trainer.agent())?;
    let policy = run.file("policy.flw");
    if !finished {
        write_atomic(&policy, bytes.as_slice())?;
        return Err(Error::Interrupted(format!(
            "stopped at {} of {} control steps: the policy so far is {}; training cannot be continued yet, \
             `cargo run --release -p host-train -- train --config {} --out NEW` starts it over",
            progress.steps,
            progress.total,
            policy.display(),
            run.file("config.toml").display()
        )));
    }
    write_atomic(&policy, bytes.as_slice())?;
    let after = assess(&config, &bytes, config.eval.episodes, &interrupted)?;
    watch.record(&progress, &bytes, &after)?;

    let (plain, best) = (after.plain(), after.best());
    let cpu = started.elapsed().as_secs_f64();
    let file = policy.display();
    output.line(&format!(
        "{} on {}, seed {}: {} control steps, {} updates, {cpu:.1} CPU-seconds",
        config.algo, config.env.name, config.seed, progress.steps, progress.updates
    ));
    output.line(&format!("  before   {}", describe(&before, config.eval.best_of)));
    output.line(&format!("  after    {}", describe(&after, config.eval.best_of)));
    output.line(&format!("  policy   {file}, {} bytes", bytes.as_slice().len()));
    output.line(&format!("  curve    {}", run.file("curve.svg").display()));
    output.line("next:");
    output.line(&format!("  cargo run --release -p host-train -- verify {file}"));
    output.line(&format!("  cargo run --release -p host-train -- eval --policy {file} --episodes 100"));
    if config.env.name == "pendulum" {
        output.line(&format!("  cargo run --release -p host-train -- export {file} --firmware"));
        output.line("  (cd firmware && cargo run --release --bin pendulum)");
    }
    output.object(&json!({
        "env": config.env.name,
        "algo": config.algo,
        "seed": config.seed,
        "total_timesteps": progress.steps,
        "cpu_seconds": cpu,
        "return_mean": plain.mean,
        "return_ci95": plain.ci95,
        "return_best_of": best.map(|b| b.mean),
        "return_before": before.plain().mean,
        "episodes": plain.n,
        "run_dir": run.path(),
        "policy": policy,
        "policy_bytes": bytes.as_slice().len(),
    }));
    Ok(())
}

/// What to say of posterior means that were refused; nothing when none was.
fn warning(progress: &Progress, actor_batch: usize) -> Option<String> {
    let of = progress.updates * actor_batch as u64;
    (progress.refused > 0).then(|| {
        format!(
            "warning: {} of {of} posterior means were refused, for the critic was not finite there: the policy's own \
             sample took their place, and the actor learnt nothing from them",
            progress.refused
        )
    })
}

/// Plays `episodes` episodes with the artefact.
fn assess(config: &Config, bytes: &ArtefactBytes, episodes: usize, stop: &AtomicBool) -> Result<Evaluation> {
    let artefact = bytes.artefact()?;
    let mut env = env_for(&artefact, None, &config.env.physics)?;
    let protocol = Protocol { episodes, seed: EVALUATION_SEED, best_of: config.eval.best_of };
    evaluate_until(&artefact, &mut env, protocol, stop)
}

/// `mean return -150.1 +- 30.2 (single sample), -149.8 +- 30.1 (best of 16 by the critic), 20 episodes, 95 % interval`.
pub(super) fn describe(evaluation: &Evaluation, best_of: usize) -> String {
    let interval = |s: Summary| {
        if s.ci95.is_finite() { format!("{:.1} +- {:.1}", s.mean, s.ci95) } else { format!("{:.1}", s.mean) }
    };
    let plain = evaluation.plain();
    let best = evaluation.best().map(|b| format!(", {} (best of {best_of} by the critic)", interval(b)));
    let over = if plain.n == 1 { "1 episode".to_string() } else { format!("{} episodes, 95 % interval", plain.n) };
    format!("mean return {} (single sample){}, {over}", interval(plain), best.unwrap_or_default())
}

/// Looks on: progress bar, evaluations along the way, the run folder's files, Ctrl-C.
struct Watch<'a> {
    config: &'a Config,
    run: &'a RunDir,
    csv: ProgressFile,
    rows: Vec<ProgressRow>,
    bar: ProgressBar,
    /// Returns of the training episodes since the last row.
    recent: Vec<f64>,
    next: u64,
    interrupted: Arc<AtomicBool>,
    failed: Option<Error>,
}

impl<'a> Watch<'a> {
    fn new(config: &'a Config, run: &'a RunDir, interrupted: Arc<AtomicBool>) -> Result<Self> {
        let style = "{bar:30} {pos}/{len} control steps, {rate}, {eta} left, {msg}";
        let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
        let style = style.with_key("rate", |state: &ProgressState, out: &mut dyn Write| {
            // A failed write to the bar's own buffer has nobody to be told.
            let _ = write!(out, "{:.0}/s", state.per_sec());
        });
        let bar = ProgressBar::new(config.total_timesteps).with_style(style).with_message("no episode yet");
        let csv = ProgressFile::create(run)?;
        Ok(Self {
            config,
            run,
            csv,
            rows: Vec::new(),
            bar,
            recent: Vec::new(),
            next: config.eval.every,
            interrupted,
            failed: None,
        })
    }

    /// Writes what an evaluation found: policy, table and curve.
    fn record(&mut self, progress: &Progress, bytes: &ArtefactBytes, evaluation: &Evaluation) -> Result<()> {
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
        write_atomic(&self.run.file("policy.flw"), bytes.as_slice())?;
        self.csv.write(&row)?;
        self.rows.push(row);
        let config = self.config;
        let title = format!("{}, {}, seed {}", config.env.name, config.algo, config.seed);
        write_curve(&self.run.file("curve.svg"), &title, config.eval.best_of, &self.rows)
    }

    /// An evaluation along the way.
    fn look(&mut self, progress: &Progress, agent: &Rfm) -> Result<()> {
        let bytes = ArtefactBytes::of_agent(self.config, agent)?;
        let evaluation = assess(self.config, &bytes, self.config.eval.curve_episodes, &self.interrupted)?;
        self.record(progress, &bytes, &evaluation)?;
        if self.bar.is_hidden() {
            let seconds = self.bar.elapsed().as_secs_f64();
            let rate = progress.steps as f64 / seconds.max(1e-9);
            let left = (progress.total.saturating_sub(progress.steps)) as f64 / rate.max(1e-9);
            note(&format!(
                "{} of {} control steps, {rate:.0}/s, {left:.0} s left: {}",
                progress.steps,
                progress.total,
                describe(&evaluation, self.config.eval.best_of)
            ));
        }
        Ok(())
    }
}

impl Observer for Watch<'_> {
    fn block(&mut self, progress: &Progress, episodes: &[Episode], agent: &mut Rfm) -> ControlFlow<()> {
        self.recent.extend(episodes.iter().map(|e| e.episode_return));
        self.bar.set_position(progress.steps);
        if let Some(episode) = episodes.last() {
            self.bar.set_message(format!("return {:.0}", episode.episode_return));
        }
        if progress.steps >= self.next && progress.steps < progress.total {
            self.next = progress.steps - progress.steps % self.config.eval.every + self.config.eval.every;
            if let Err(error) = self.look(progress, agent) {
                self.failed = Some(error);
                return ControlFlow::Break(());
            }
        }
        if self.interrupted.load(Ordering::SeqCst) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::rfm::UpdateStats;

    #[test]
    fn refused_means_are_told_once_there_are_any() {
        let last = UpdateStats::default();
        let sound = Progress { steps: 9, total: 9, decisions: 9, updates: 5, cpu_seconds: 0.0, refused: 0, last };
        assert_eq!(warning(&sound, 64), None);
        let text = warning(&Progress { refused: 3, ..sound }, 64).unwrap();
        assert!(text.starts_with("warning: 3 of 320 posterior means were refused"), "{text}");
    }
}
