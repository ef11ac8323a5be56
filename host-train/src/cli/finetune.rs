//! `finetune`: lets a policy go on learning on a changed plant by the learner that runs on the device.

use super::eval::assignment;
use super::{FinetuneArgs, Output, note};
use crate::evaluate::env_for;
use crate::finetune::{Options, finetune, mode, set};
use crate::policy::ArtefactBytes;
use crate::Result;
use serde_json::json;
use std::collections::BTreeMap;

/// Runs the command.
pub(super) fn run(args: &FinetuneArgs, output: Output) -> Result<()> {
    let bytes = ArtefactBytes::read(&ArtefactBytes::place(&args.policy)?)?;
    let artefact = bytes.artefact()?;
    let name = args.env.clone().unwrap_or_else(|| artefact.name().to_string());
    let (mut physics, mut constants) = (BTreeMap::new(), Vec::new());
    for pair in &args.set {
        match pair.strip_prefix("finetune.").and_then(|pair| pair.split_once('=')) {
            Some((key, value)) => constants.push((key.trim(), value.trim())),
            None => drop(physics.insert(assignment(pair)?.0, assignment(pair)?.1)),
        }
    }
    let mut env = env_for(&artefact, Some(&name), &physics)?;
    let mut apart = env_for(&artefact, Some(&name), &physics)?;
    let mut config = mode(&args.mode, env.spec(), &artefact)?;
    for (key, value) in constants {
        set(&mut config, key, value)?;
    }
    let options = Options {
        seed: args.seed,
        seconds: args.seconds,
        every: args.every,
        episodes: [args.episodes as usize, args.episodes as usize * 5],
        eval_seed: 0x5eed_3000_0000 + args.seed,
        reward_scale: env.spec().reward_scale,
    };
    let outcome = finetune(&artefact, config, &options, (&mut env, &mut apart), &mut |row| {
        note(&format!(
            "{:6.0} s {:6} updates: training {:7.1}, return {:7.1} +- {:5.1}, TD error {:.4}, value {:.3}, effective {:.2}",
            row.seconds, row.updates, row.training, row.returns.mean, row.returns.ci95, row.td_error, row.value, row.effective
        ));
        Ok(())
    })?;
    let (first, last) = (outcome.rows.first(), outcome.rows.last());
    let (before, after) = (first.map_or(f64::NAN, |r| r.returns.mean), last.map_or(f64::NAN, |r| r.returns.mean));
    output.line(&format!("return before {before:.1}, after {after:.1}; {} bytes of RAM, {} resets", outcome.ram_bytes, outcome.resets));
    output.object(&json!({
        "env": name,
        "return_before": before,
        "return_after": after,
        "robot_seconds": args.seconds,
        "updates": last.map_or(0, |r| r.updates),
        "ram_bytes": outcome.ram_bytes,
        "resets": outcome.resets,
    }));
    Ok(())
}
