//! `inspect`: what an exported policy holds and what it costs to run, or where a run stands.

use super::{Output, note};
use crate::checkpoint::{self, hex};
use crate::policy::{ArtefactBytes, HostPolicy};
use crate::run::RunDir;
use crate::session;
use crate::{Error, Result};
use clap::Args;
use flowlet::policy::PolicyScratch;
use serde_json::json;
use std::path::{Path, PathBuf};

/// What `inspect` looks at.
#[derive(Args, Clone, Debug)]
pub struct InspectArgs {
    /// An exported policy, or a run folder
    #[arg(value_name = "FILE|RUN")]
    pub path: PathBuf,
}

/// Runs the command.
pub(super) fn run(args: &InspectArgs, output: Output) -> Result<()> {
    if args.path.is_dir() { folder(&args.path, output) } else { policy(&args.path, output) }
}

/// Where a run stands, by its newest good checkpoint.
fn folder(path: &Path, output: Output) -> Result<()> {
    let run = RunDir::open(path)?;
    let config = run.config(None)?;
    let found = checkpoint::newest(&run.checkpoints())?;
    for damaged in &found.damaged {
        note(&format!("warning: {damaged}: the one before it is shown"));
    }
    let Some(checkpoint) = found.newest else {
        return Err(Error::failure(format!(
            "{} has no checkpoint yet: `resume` starts it again from its config.toml",
            path.display()
        )));
    };
    let finished = session::is_finished(&checkpoint, &config);
    let digest = hex(checkpoint.digest);
    output.line(&format!("{}: {} on {}, seed {}", path.display(), config.algo(), config.env.name, config.seed));
    output.line(&format!(
        "  stands at    {} of {} control steps, {} updates, {}",
        checkpoint.timesteps,
        config.total_timesteps,
        checkpoint.updates,
        if finished { "finished" } else { "not finished" }
    ));
    output.line(&format!("  checkpoint   {}", checkpoint.path.display()));
    output.line(&format!("  digest       {digest}"));
    output.object(&json!({
        "run_dir": path,
        "env": config.env.name,
        "algo": config.algo(),
        "preset": config.preset,
        "seed": config.seed,
        "timesteps": checkpoint.timesteps,
        "total_timesteps": config.total_timesteps,
        "updates": checkpoint.updates,
        "finished": finished,
        "digest": digest,
        "checkpoint": checkpoint.path,
    }));
    Ok(())
}

fn policy(file: &Path, output: Output) -> Result<()> {
    let bytes = ArtefactBytes::read(file)?;
    let artefact = bytes.artefact()?;
    let host = HostPolicy::new(artefact)?;
    let (shape, plan, range) = (*artefact.velocity().shape(), *artefact.plan(), *artefact.range());
    let (macs, saved) = (host.policy().macs_per_decision(), host.policy().macs_saved_per_decision());
    let scratch = 4 * PolicyScratch::len(&shape, &plan);
    let (obs_names, act_names): (Vec<_>, Vec<_>) = (artefact.obs_names().collect(), artefact.act_names().collect());
    let critic = artefact.critics().next().map(|c| *c.shape());
    let period = f64::from(artefact.period_us()) / 1e6;

    output.line(&format!(
        "{}: format version {}, {}, {} bytes",
        file.display(),
        artefact.format_version(),
        artefact.velocity().format().name(),
        bytes.as_slice().len()
    ));
    output.line(&format!("  for          {}, a decision every {period} s", artefact.name()));
    output.line(&format!("  observation  {}", obs_names.join(", ")));
    let ranges = act_names.iter().zip(range.low.iter().zip(range.high));
    let ranges: Vec<String> = ranges.map(|(name, (low, high))| format!("{name} in [{low}, {high}]")).collect();
    output.line(&format!("  action       {}", ranges.join(", ")));
    output.line(&format!(
        "  velocity     {} hidden layers of {} {} units, {} trunk, {} time frequencies, {} parameters",
        shape.layers,
        shape.hidden,
        shape.activation.name(),
        shape.trunk.name(),
        shape.frequencies,
        shape.params()
    ));
    output.line(&format!(
        "  plan         {} {} steps on [{}, {}], latent clipped at {}",
        plan.steps,
        plan.solver.name(),
        plan.t_start,
        plan.t_end,
        plan.latent_clip
    ));
    match critic {
        Some(c) => output.line(&format!(
            "  critics      {} of {} x {}, {} particles, temperature {}",
            artefact.critics().count(),
            c.layers,
            c.hidden,
            artefact.particles(),
            artefact.temperature()
        )),
        None => output.line("  critics      none"),
    }
    let steps: Vec<_> = artefact.step_table().collect();
    let shown = steps.iter().map(|e| match e.half_width {
        f32::MAX => format!("{}: {:.1}", e.steps, e.mean_return),
        half_width => format!("{}: {:.1} +- {half_width:.1}", e.steps, e.mean_return),
    });
    let shown: Vec<String> = shown.collect();
    output.line(&format!(
        "  return by number of steps, single samples   {}",
        if shown.is_empty() { "not measured".to_string() } else { shown.join(", ") }
    ));
    output.line(&format!(
        "  a decision   {macs} multiply-accumulates ({saved} more without the cached time part), {scratch} bytes of memory"
    ));
    output.object(&json!({
        "policy": file,
        "format_version": artefact.format_version(),
        "number_format": artefact.velocity().format().name(),
        "bytes": bytes.as_slice().len(),
        "env": artefact.name(),
        "period_us": artefact.period_us(),
        "obs": obs_names,
        "act": act_names,
        "low": range.low,
        "high": range.high,
        "hidden": shape.hidden,
        "layers": shape.layers,
        "activation": shape.activation.name(),
        "trunk": shape.trunk.name(),
        "frequencies": artefact.velocity().frequencies(),
        "solver": plan.solver.name(),
        "steps": plan.steps,
        "interval": [plan.t_start, plan.t_end],
        "latent_clip": plan.latent_clip,
        "critics": artefact.critics().count(),
        "particles": artefact.particles(),
        "temperature": artefact.temperature(),
        "step_table": steps.iter().map(|e| json!([e.steps, e.mean_return, e.half_width])).collect::<Vec<_>>(),
        "macs_per_decision": macs,
        "macs_saved_per_decision": saved,
        "scratch_bytes": scratch,
    }));
    Ok(())
}
