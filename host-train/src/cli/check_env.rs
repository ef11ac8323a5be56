//! `check-env`: replays records of the originals and reports how far our environments are from them.
//!
//! A record of another task is named and left out; if nothing remains, or a difference exceeds the tolerance, the
//! command fails.

use super::{Output, note};
use crate::env;
use crate::records::{Difference, EXACT, Recording, TOLERANCE};
use crate::{Error, Result};
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Options of `check-env`.
#[derive(Args, Clone, Debug)]
pub struct CheckEnvArgs {
    /// A record, or a folder of records (*.json)
    #[arg(value_name = "FILE|DIR")]
    pub path: PathBuf,
    /// Environment to replay on [default: the one each record names]
    #[arg(long, value_name = "NAME")]
    pub env: Option<String>,
}

/// Checks a record, or every record of a folder.
pub(super) fn run(args: &CheckEnvArgs, output: Output) -> Result<()> {
    // An unknown name is refused before anything is read.
    if let Some(name) = &args.env {
        env::make(name, &BTreeMap::new())?;
    }
    let folder = args.path.is_dir();
    let files = if folder { records_in(&args.path)? } else { vec![args.path.clone()] };
    let mut total = Difference::default();
    let mut left_out = Vec::new();
    for file in &files {
        let recordings = Recording::read(file)?;
        if recordings.is_empty() {
            left_out.push(format!("{} (no record)", name_of(file)));
        }
        for recording in recordings {
            // A folder is sorted by what its records say they are; for a single file --env has the last word.
            let envs: Vec<&str> = match &args.env {
                Some(wanted) if folder || recording.envs.contains(&wanted.as_str()) => {
                    recording.envs.iter().copied().filter(|env| env == wanted).collect()
                }
                Some(wanted) => vec![wanted.as_str()],
                None => recording.envs.clone(),
            };
            if envs.is_empty() {
                left_out.push(format!("{} ({})", name_of(file), recording.task));
            }
            for env in envs {
                let difference = recording.replay(&mut *env::make(env, &BTreeMap::new())?)?;
                tell(&name_of(file), env, &difference, output);
                total.add(&difference);
            }
        }
    }
    if !left_out.is_empty() {
        note(&format!(
            "not covered: {} of the records in {} files are not of {}: {}",
            left_out.len(),
            files.len(),
            args.env.clone().unwrap_or_else(|| "any environment".to_string()),
            left_out.join(", ")
        ));
    }
    if total.records == 0 {
        return Err(Error::failure(format!(
            "{} holds no record of an environment that can be checked: the environments are {}",
            args.path.display(),
            env::known().join(", ")
        )));
    }
    output.object(&report(&total, left_out.len()));
    if !total.is_match() {
        return Err(Error::failure(format!(
            "{} of {} records differ, by up to {:.1e} in an observation, {:.1e} in a reward and {:.1e} in a state, more than \
             {TOLERANCE:.0e}, or {EXACT:.0e} for the Control Suite: check that the record is of this environment and version",
            total.apart, total.records, total.max_obs, total.max_reward, total.max_state
        )));
    }
    let rollouts = total.records - total.placed;
    output.line(&format!(
        "{rollouts} rollouts, {} steps, {} placed states: equal to {TOLERANCE:.0e}, the Control Suite's to {EXACT:.0e}",
        total.steps, total.placed
    ));
    Ok(())
}

/// One line about a record, or two.
fn tell(file: &str, env: &str, difference: &Difference, output: Output) {
    let what = if difference.placed > 0 {
        format!("{} placed states", difference.placed)
    } else {
        format!("{} steps of {} rollouts", difference.steps, difference.records)
    };
    output.line(&format!(
        "{file}: {env}, {what}, largest difference {:.1e} in an observation, {:.1e} in a reward, {:.1e} in a state",
        difference.max_obs, difference.max_reward, difference.max_state
    ));
    if difference.steps_beyond > 0 {
        output.line(&format!(
            "    and {} steps after it left its limits, not held to be equal: {:.1e}",
            difference.steps_beyond, difference.max_beyond
        ));
    }
}

fn report(total: &Difference, not_covered: usize) -> Value {
    // JSON has no infinity, which stands for a NaN on the way: the largest number is as far from a match.
    json!({
        "records": total.records,
        "apart": total.apart,
        "steps": total.steps,
        "placed": total.placed,
        "max_obs_diff": total.max_obs.min(f64::MAX),
        "max_reward_diff": total.max_reward.min(f64::MAX),
        "max_state_diff": total.max_state.min(f64::MAX),
        "steps_beyond": total.steps_beyond,
        "max_beyond_diff": total.max_beyond.min(f64::MAX),
        "tolerance": TOLERANCE,
        "tolerance_suite": EXACT,
        "not_covered": not_covered,
    })
}

/// The JSON files of a folder, sorted by name.
fn records_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = |e: std::io::Error| Error::usage(format!("cannot read the folder {}: {e}", folder.display()));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|e| e == "json") && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
