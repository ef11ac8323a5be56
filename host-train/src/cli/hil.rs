//! `hil`: hardware in the loop. The plant runs here, a board decides, and the return must be the host evaluation's.
//!
//! The start states, the noise and the physics are those of `eval` with the same seed. Returns are compared bit for bit; a
//! difference is a failure. Latencies are round trips as the PC sees them: host, line and board together.

use super::eval::{assignment, tell_ways};
use super::finetune::Settings;
use super::{Output, hil_finetune, note, stage, trained_physics};
use crate::env;
use crate::evaluate::{ArtefactPlayer, env_for, play_plain};
use crate::hil::faults::{Faulty, Rates};
use crate::hil::watch::Watch;
use crate::hil::{Board, BoardPlayer, Telemetry, line};
use crate::policy::{ArtefactBytes, HostPolicy};
use crate::run::write_atomic;
use crate::transitions;
use crate::{Error, Result};
use clap::Args;
use flowlet::control::Reason;
use flowlet_link::frame::{Counters, crc32};
use flowlet_link::message::{Info, Place, Reset};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Options of `hil`.
#[derive(Args, Clone, Debug)]
pub struct HilArgs {
    /// The board: a serial port, or tcp:HOST:PORT
    #[arg(long, value_name = "DEVICE")]
    pub port: String,
    /// Environment [default: the one the board's policy was trained on]
    #[arg(long, value_name = "NAME")]
    pub env: Option<String>,
    /// Episodes to play
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub episodes: u32,
    /// Policy to put on the board first, a file or a run folder [default: the board's, which is read back]
    #[arg(long, value_name = "FILE|RUN")]
    pub policy: Option<PathBuf>,
    /// Seed of start states and samples
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Change the physics, for example env.mass=1.2, or with --finetune the learner, as `finetune` does; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Write the transitions, as `train --replay` reads them
    #[arg(long, value_name = "LOG.csv")]
    pub record: Option<PathBuf>,
    /// Write the policy that the board decides by; with --finetune the one that it deploys in the end [default there:
    /// learned.flw in the run's folder]
    #[arg(long, value_name = "POLICY.flw")]
    pub read_back: Option<PathBuf>,
    /// Have the board learn, from a policy that carries its critics
    #[arg(long)]
    pub finetune: bool,
    /// With --finetune: what is trained, and in how much memory: adam, lean, all or last
    #[arg(long, value_name = "NAME", default_value = "adam", requires = "finetune")]
    pub mode: String,
    /// With --finetune: robot time, s
    #[arg(long, value_name = "S", default_value_t = 900.0, requires = "finetune")]
    pub seconds: f64,
    /// With --finetune: the folder for the results [default: a new one under runs/]
    #[arg(long, value_name = "DIR", requires = "finetune")]
    pub out: Option<PathBuf>,
    /// Write what the board tells of its learning [default with --finetune: learning.csv in the run's folder]
    #[arg(long, value_name = "FILE.csv")]
    pub csv: Option<PathBuf>,
    /// Baud rate of a serial port
    #[arg(long, value_name = "N", default_value_t = 115_200, value_parser = clap::value_parser!(u32).range(1..))]
    pub baud: u32,
    /// Ask again after so many milliseconds without an answer
    #[arg(long, value_name = "MS", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub timeout: u64,
    /// The board gives the fallback once so many control periods passed without an observation [default: it waits]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub patience: Option<u32>,
    /// Ask the board for telemetry after every so many decisions [default with --finetune: once a second of robot time]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub telemetry: Option<u32>,
    /// To test the line: share of the frames, both ways, that are lost
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    pub drop: f64,
    /// To test the line: share of the frames with a byte changed
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    pub corrupt: f64,
    /// To test the line: share of the frames that come twice
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    pub repeat: f64,
    /// To test the line: share of the frames that come after up to three later ones
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    pub delay: f64,
}

/// Runs the command.
pub(super) fn run(args: &HilArgs, output: Output) -> Result<()> {
    let rates = Rates { drop: args.drop, corrupt: args.corrupt, repeat: args.repeat, delay: args.delay };
    rates.check()?;
    let mut physics = if args.finetune {
        Settings::of(&args.set)?.physics
    } else {
        args.set.iter().map(|pair| assignment(pair)).collect::<Result<BTreeMap<_, _>>>()?
    };
    let file = args.policy.as_deref().map(ArtefactBytes::place).transpose()?;
    let mut uploaded = match &file {
        // Unchecked: the board is to say what it thinks of it.
        Some(path) => Some(ArtefactBytes::new(&std::fs::read(path).map_err(|e| {
            Error::usage(format!("cannot read the policy {} ({e}): give the path of a policy.flw", path.display()))
        })?)),
        None => None,
    };
    for path in [&args.record, &args.read_back, &args.csv].into_iter().flatten() {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if folder.is_some_and(|folder| !folder.is_dir()) || path.is_dir() {
            return Err(Error::usage(format!("cannot write {}: give a file in a folder that exists", path.display())));
        }
    }
    // What can be said without a board is said before the board gets anything.
    match (&file, uploaded.as_ref().map(|bytes| bytes.artefact())) {
        (Some(file), Some(Ok(artefact))) => {
            // As in `eval`; a board that learns does so on the plant that is named.
            if !args.finetune {
                let mut trained = trained_physics(file, args.env.as_deref().unwrap_or(artefact.name()))?;
                trained.append(&mut physics);
                physics = trained;
            }
            drop(env_for(&artefact, args.env.as_deref(), &physics)?);
        }
        _ => drop(args.env.as_deref().map(|name| env::make(name, &physics)).transpose()?),
    }
    let line = Faulty::new(line::open(&args.port, args.baud)?, &args.port);
    let (mut board, mut info) = Board::connect(line, Duration::from_millis(args.timeout))?;
    let before = (board.board_counters()?, board.counters());
    board.spoil(rates, args.seed);
    note(&format!("{} decides by {} ({})", info.board.text(), info.name.text(), place(&info)));
    if !args.finetune {
        uploaded = uploaded.map(|bytes| fitted(bytes, &info)).transpose()?;
    }
    let bytes = match uploaded {
        Some(bytes) => {
            let slice = bytes.as_slice();
            if (info.length as usize, info.crc) != (slice.len(), crc32(slice)) {
                info = board.upload(slice, &info)?;
                note(&format!("{} bytes are on the board, checked and in use", slice.len()));
            }
            bytes
        }
        None => board.read_back(&info)?,
    };
    if args.finetune {
        let learned = hil_finetune::run(args, &mut board, info, (&bytes, &physics), output);
        return board.mend().and(learned);
    }
    if let Some(path) = &args.read_back {
        write_atomic(path, bytes.as_slice())?;
    }
    let artefact = bytes.artefact()?;
    let mut env = stage(&artefact, args.env.as_deref(), &physics)?;
    let name = env.spec().name.clone();
    let decisions = env.decisions_per_episode();
    note(&format!("playing {name}: {} episodes of {decisions} decisions with seed {}", args.episodes, args.seed));
    let reset = Reset { seed: 0, patience: args.patience.unwrap_or(0), telemetry: args.telemetry.unwrap_or(0) };
    let episodes = args.episodes as usize;
    let mut rows = Vec::new();
    let mut watch = Watch::new(env.period(), env.spec().reward_scale, args.csv.as_deref(), note)?;
    let mut player = BoardPlayer::new(&mut board, reset, |telemetry| tell_telemetry(&mut watch, &telemetry));
    let played = play_plain(&mut player, &mut env, episodes, args.seed, &mut |row| {
        if args.record.is_some() {
            rows.push(row);
        }
    })?;
    let latency = Latency::of(player.round_trips());
    let (ticks, fallbacks, fault) = (player.ticks().to_vec(), player.fallbacks(), player.fault());
    drop(player);
    watch.finish()?;
    board.mend()?;
    let after = board.board_counters()?;
    if let Some(path) = &args.record {
        transitions::write(path, &env, &rows)?;
        note(&format!("{} transitions are in {}", rows.len(), path.display()));
    }
    let expected = play_plain(&mut ArtefactPlayer::new(artefact)?, &mut env, episodes, args.seed, &mut |_| ())?;
    let pairs = played.returns.iter().zip(&expected.returns);
    let different = pairs.filter(|(a, b)| a.to_bits() != b.to_bits()).count();

    let (here, there) = (expected.plain(), played.plain());
    let unit = if info.ticks_per_second == 0 { "instructions" } else { "ticks" };
    let most = ticks.iter().max().copied().unwrap_or(0);
    let mean = ticks.iter().map(|t| f64::from(*t)).sum::<f64>() / ticks.len().max(1) as f64;
    let counted = difference(&after, &before.0);
    let counted_here = difference(&board.counters(), &before.1);
    output.line(&format!("return on the board  {} in {episodes} episodes", there.mean));
    output.line(&format!("return on the host   {}", here.mean));
    output.line(&match different {
        0 => "equal, bit for bit".to_string(),
        n => format!("DIFFERENT in {n} of {episodes} episodes"),
    });
    output.line(&format!("decision on the board: mean {mean:.0} {unit}, max {most}"));
    output.line(&format!(
        "round trip over the line: p50 {:.2} ms, p90 {:.2}, p99 {:.2}, max {:.2}, of {} decisions",
        latency.p50,
        latency.p90,
        latency.p99,
        latency.max,
        ticks.len()
    ));
    output.line(&format!("counted by the board: {}", told(&counted)));
    output.line(&format!("counted here:         {}, {} asked again", told(&counted_here), board.retransmissions()));
    tell_ways(&played, output);
    let (to_board, from_board) = board.tallies();
    output.object(&json!({
        "env": name,
        "board": info.board.text(),
        "policy": info.name.text(),
        "seed": args.seed,
        "episodes": episodes,
        "decisions": ticks.len(),
        "return_mean": there.mean,
        "return_host": here.mean,
        "returns": played.returns,
        "returns_host": expected.returns,
        "ways": played.shares().map(|(ways, _)| ways),
        "equal": different == 0,
        "fallbacks": fallbacks,
        "decision": { "unit": unit, "mean": mean, "max": most },
        "round_trip_ms": { "p50": latency.p50, "p90": latency.p90, "p99": latency.p99, "max": latency.max },
        "counted_by_board": object(&counted),
        "counted_here": object(&counted_here),
        "asked_again": board.retransmissions(),
        "faults": { "to_board": to_board, "from_board": from_board },
    }));
    if fallbacks > 0 {
        let advice = if fault.reason == Reason::Missing {
            "observations came later than its patience: give it more by --patience, or none".to_string()
        } else {
            fault.to_string()
        };
        return Err(Error::failure(format!(
            "the board gave its fallback or a held action {fallbacks} times: {advice}"
        )));
    }
    if different > 0 {
        return Err(Error::failure(
            "the board does not compute what this program computes: run `cargo xtask digests`, and check the board's FPU \
             settings",
        ));
    }
    Ok(())
}

/// The policy, without its critics where only they make it too large for the board: a board that does not learn never asks
/// them. What is no policy goes as it is.
fn fitted(bytes: ArtefactBytes, info: &Info) -> Result<ArtefactBytes> {
    let large = bytes.as_slice().len() > info.room as usize;
    let plain = match bytes.artefact() {
        Ok(artefact) if large && artefact.critics().count() > 0 => {
            // The one without them gets a self-test of its own, so this one is done here.
            HostPolicy::new(artefact)?.self_test()?;
            bytes.revised(*artefact.plan(), false)?
        }
        _ => return Ok(bytes),
    };
    if plain.as_slice().len() > info.room as usize {
        return Ok(bytes);
    }
    note(&format!(
        "the critics stay here: with them the policy is larger than the board's room of {} bytes",
        info.room
    ));
    Ok(plain)
}

/// Passes on what the board tells.
pub(super) fn tell_telemetry(watch: &mut Watch, telemetry: &Telemetry) -> Result<()> {
    match telemetry {
        Telemetry::Learning(learning) => watch.frame(learning),
        Telemetry::Other { channel, values } => {
            note(&format!("telemetry {channel}: {values:?}"));
            Ok(())
        }
    }
}

fn place(info: &Info) -> String {
    match info.place {
        Place::Flash => format!("{} bytes in flash", info.length),
        Place::Ram => format!("{} bytes, uploaded", info.length),
    }
}

/// Percentiles of the round trips, in milliseconds.
pub(super) struct Latency {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

impl Latency {
    /// By the nearest rank.
    pub(super) fn of(times: &[Duration]) -> Self {
        let mut sorted: Vec<f64> = times.iter().map(|t| t.as_secs_f64() * 1e3).collect();
        sorted.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100).max(1);
            sorted.get(rank - 1).copied().unwrap_or(0.0)
        };
        Self { p50: at(50), p90: at(90), p99: at(99), max: at(100) }
    }
}

/// What was counted between two readings.
fn difference(after: &Counters, before: &Counters) -> Counters {
    let (mut values, earlier) = (after.to_array(), before.to_array());
    values.iter_mut().zip(earlier).for_each(|(value, earlier)| *value = value.wrapping_sub(earlier));
    Counters::from_array(values)
}

fn told(c: &Counters) -> String {
    format!(
        "{} frames, {} with a wrong CRC, {} no frames, {} too long, {} repeated, {} lost, {} late, {} refused",
        c.frames, c.crc, c.framing, c.too_long, c.repeated, c.lost, c.stale, c.refused
    )
}

fn object(c: &Counters) -> Value {
    json!({
        "frames": c.frames,
        "crc": c.crc,
        "framing": c.framing,
        "too_long": c.too_long,
        "repeated": c.repeated,
        "lost": c.lost,
        "late": c.stale,
        "refused": c.refused,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_the_nearest_rank() {
        let times: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
        let l = Latency::of(&times);
        assert_eq!((l.p50, l.p90, l.p99, l.max), (100.0, 180.0, 198.0, 200.0));
        let one = Latency::of(&[Duration::from_millis(3)]);
        assert_eq!((one.p50, one.max), (3.0, 3.0));
        assert_eq!(Latency::of(&[]).max, 0.0);
    }
}
