//! `hil --finetune`: a board learns on a plant that is simulated here, and what it learned must be what a session on this
//! computer learns from the same life: the returns of all episodes, the deployed policy and the candidate, bit for bit.
//!
//! Writes `learned.flw`, what the board deploys, `learning.csv`, what it told, and `hil.json` into a folder of its own.

use super::finetune::{Settings, folder, make_folder};
use super::hil::{Latency, tell_telemetry};
use super::{HilArgs, Output, note};
use crate::env::{Decision, make};
use crate::evaluate::env_for;
use crate::finetune::live::{Local, Moment, live};
use crate::finetune::{Options, Reward, mode, session_config, set};
use crate::hil::Board;
use crate::hil::learn::BoardPupil;
use crate::hil::watch::Watch;
use crate::policy::ArtefactBytes;
use crate::run::write_atomic;
use crate::transitions;
use crate::{Error, Result};
use flowlet::finetune::guard::Player;
use flowlet_link::message::{Info, Reset};
use serde_json::json;
use std::collections::BTreeMap;

/// Has the board learn, reads back what it learned, and compares.
pub(super) fn run(
    args: &HilArgs,
    board: &mut Board,
    info: Info,
    (bytes, physics): (&ArtefactBytes, &BTreeMap<String, f64>),
    output: Output,
) -> Result<()> {
    let artefact = bytes.artefact()?;
    let decisions = env_for(&artefact, args.env.as_deref(), physics)?;
    let (spec, repeat, period) = (decisions.spec().clone(), decisions.action_repeat(), decisions.period());
    let plant = || -> Result<Decision> { Ok(Decision::new(make(&spec.name, physics)?, 1)) };
    let mut env = plant()?;
    if env.metric().is_none() {
        return Err(Error::usage(format!(
            "fine-tuning needs a task metric, which {} has not: use pendulum, cartpole, furuta, acrobot or quadrotor2d",
            spec.name
        )));
    }
    let mut config = mode(&args.mode, &spec, &artefact)?;
    let mut options = Options {
        seed: args.seed,
        seconds: args.seconds,
        every: args.seconds,
        episodes: [0, 0],
        eval_seed: 0,
        reward_scale: spec.reward_scale,
        reward: Reward::Task,
        session: session_config(&spec)?,
    };
    for (key, value) in Settings::of(&args.set)?.constants {
        set(&mut config, &mut options, key, value)?;
    }
    // Whatever the board would refuse is said by the session here, before a folder is made.
    let mut here = Local::new(&artefact, config, &options)?;
    let folder = folder(args.out.as_deref(), &format!("hil-{}", spec.name), &args.mode, args.seed)?;
    make_folder(&folder)?;
    let table = args.csv.clone().unwrap_or_else(|| folder.join("learning.csv"));
    let mut watch = Watch::new(period, spec.reward_scale, Some(&table), note)?;
    note(&format!(
        "{} learns on {}: {} s of robot time with seed {}",
        info.board.text(),
        spec.name,
        args.seconds,
        args.seed
    ));

    let telemetry = args.telemetry.unwrap_or((1.0 / period).round().max(1.0) as u32);
    let reset = Reset { patience: args.patience.unwrap_or(0), ..Reset::default() };
    let heard = |telemetry| tell_telemetry(&mut watch, &telemetry);
    let mut there = BoardPupil::new(board, info, (config, &options), (reset, telemetry), heard)?;
    let (mut returns, mut rows) = (Vec::new(), Vec::new());
    live(&mut there, &mut env, repeat, &options, &mut |_, moment: Moment| {
        returns.extend(moment.episode_return);
        if args.record.is_some() {
            rows.push(moment.transition);
        }
        Ok(())
    })?;
    let deployed = there.read_back(Player::Incumbent)?;
    let candidate = there.read_back(Player::Candidate)?;
    let (ram_bytes, ticks, latency) = (there.ram_bytes, there.ticks.clone(), Latency::of(&there.round_trips));
    drop(there);
    watch.finish()?;
    let learned = args.read_back.clone().unwrap_or_else(|| folder.join("learned.flw"));
    write_atomic(&learned, bytes.with_params(&deployed)?.as_slice())?;
    if let Some(path) = &args.record {
        transitions::write(path, &decisions, &rows)?;
        note(&format!("{} transitions are in {}", rows.len(), path.display()));
    }

    let mut expected = Vec::new();
    live(&mut here, &mut plant()?, repeat, &options, &mut |_, moment: Moment| {
        expected.extend(moment.episode_return);
        Ok(())
    })?;
    let mut params = [vec![0.0; deployed.len()], vec![0.0; candidate.len()]];
    here.session.learner().merge(&mut params[0]);
    here.session.learner().merge_candidate(&mut params[1]);
    let same = |a: &[f32], b: &[f32]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits());
    let different = returns.iter().zip(&expected).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
    let equal = different == 0 && same(&deployed, &params[0]) && same(&candidate, &params[1]);

    let report = here.session.report();
    let is_new = !same(&deployed, artefact.velocity().as_f32().map_or(&[], |net| net.params()));
    let unit = if info.ticks_per_second == 0 { "instructions" } else { "ticks" };
    let most = ticks.iter().max().copied().unwrap_or(0);
    let mean = ticks.iter().map(|t| f64::from(*t)).sum::<f64>() / ticks.len().max(1) as f64;
    output.line(&format!(
        "{} episodes, {} decisions, {} updates on the board; the learner takes {ram_bytes} bytes there",
        returns.len(),
        ticks.len(),
        report.updates
    ));
    output.line(&format!(
        "deployed: {}; {} candidates tried",
        if is_new { "what was learned" } else { "the factory's policy" },
        report.guard.candidates
    ));
    output.line(if equal {
        "returns, deployed policy and candidate equal the host's, bit for bit"
    } else {
        "DIFFERENT from what the host learned"
    });
    output.line(&format!("decision on the board, with what was left of an update: mean {mean:.0} {unit}, max {most}"));
    output.line(&format!("learned policy {}, what the board told {}", learned.display(), table.display()));
    let object = json!({
        "env": spec.name,
        "board": info.board.text(),
        "policy": info.name.text(),
        "set": args.set,
        "seed": args.seed,
        "mode": args.mode,
        "robot_seconds": args.seconds,
        "decisions": ticks.len(),
        "updates": report.updates,
        "ram_bytes": ram_bytes,
        "returns": returns,
        "equal": equal,
        "promoted": is_new,
        "candidates": report.guard.candidates,
        "telemetry": watch.frames(),
        "decision": { "unit": unit, "mean": mean, "max": most },
        "round_trip_ms": { "p50": latency.p50, "p90": latency.p90, "p99": latency.p99, "max": latency.max },
        "asked_again": board.retransmissions(),
        "learned": learned,
        "csv": table,
        "run_dir": folder,
    });
    write_atomic(&folder.join("hil.json"), object.to_string().as_bytes())?;
    output.object(&object);
    if !equal {
        return Err(Error::failure(
            "the board does not learn what this program learns: run `cargo xtask digests`, and flash the firmware of this \
             release",
        ));
    }
    Ok(())
}
