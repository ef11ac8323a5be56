//! `render`: an episode of a policy on a task of the Control Suite as a film strip or an animation, with the feature
//! `render`; a build without it says how to get it.

use super::{Output, size};
use crate::{Error, Result};
use clap::Args;
use std::path::PathBuf;

/// Options of `render`.
#[derive(Args, Clone, Debug)]
pub struct RenderArgs {
    /// The exported policy, or a run folder [default: random actions]
    #[arg(long, value_name = "FILE|RUN", required_unless_present = "env")]
    pub policy: Option<PathBuf>,
    /// A task of the Control Suite [default: the one the policy was trained on]
    #[arg(long, value_name = "NAME")]
    pub env: Option<String>,
    /// The picture: a film strip, *.png, or an animation, *.gif or *.apng [default: a film strip called as the task]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Seed of the start and the samples; it is the first episode of `eval` with this seed
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Pictures, at equal distances [default: 6 of a film strip, 20 a second of an animation]
    #[arg(long, value_name = "N", value_parser = size(100_000))]
    pub frames: Option<usize>,
    /// Second of the episode to begin at
    #[arg(long, value_name = "S", default_value_t = 0.0)]
    pub from: f64,
    /// Seconds to draw [default: to the end; of an animation at most 10]
    #[arg(long, value_name = "S")]
    pub seconds: Option<f64>,
    /// Pixels of a picture from left to right
    #[arg(long, value_name = "W", default_value_t = 320, value_parser = clap::value_parser!(u32).range(16..=4096))]
    pub width: u32,
    /// Pixels of a picture from top to bottom
    #[arg(long, value_name = "H", default_value_t = 240, value_parser = clap::value_parser!(u32).range(16..=4096))]
    pub height: u32,
    /// Camera of the task's model, or free for one that stands still [default: one that shows the task]
    #[arg(long, value_name = "NAME")]
    pub camera: Option<String>,
    /// Draw the greedy choice from so many samples by the critic [default: plain samples]
    #[arg(long, value_name = "N", requires = "policy", value_parser = size(4096))]
    pub best_of: Option<usize>,
    /// Change the physics, for example env.mass=1.2; may be repeated
    #[arg(long, value_name = "env.KEY=VALUE")]
    pub set: Vec<String>,
}

/// Runs the command.
#[cfg(not(feature = "render"))]
pub(super) fn run(_: &RenderArgs, _: Output) -> Result<()> {
    Err(Error::usage(
        "this program was built without pictures: type `cargo xtask fetch-mujoco --render`, then build it with `cargo \
         build --release -p host-train --features render`",
    ))
}

#[cfg(feature = "render")]
pub(super) use drawn::run;

#[cfg(feature = "render")]
mod drawn {
    use super::super::eval::{Changed, assignment, with_player};
    use super::super::note;
    use super::{Error, Output, RenderArgs, Result};
    use crate::env::{self, Decision};
    use crate::fleet;
    use crate::render::{Film, Filmed, Kind, RandomPlayer};
    use crate::run::write_atomic;
    use serde_json::json;
    use std::path::{Path, PathBuf};

    /// Runs the command.
    pub(in crate::cli) fn run(args: &RenderArgs, output: Output) -> Result<()> {
        let kind = args.out.as_deref().map_or(Ok(Kind::Png), Kind::of)?;
        // Before the work rather than after it.
        let folder = args.out.as_deref().and_then(Path::parent).filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            return Err(Error::usage(format!("--out: there is no folder {}: make it first", folder.display())));
        }
        for (option, value) in [("--from", Some(args.from)), ("--seconds", args.seconds)] {
            if value.is_some_and(|s| !(0.0..=1e6).contains(&s)) {
                return Err(Error::usage(format!("{option} is in seconds of the episode, zero or above")));
            }
        }
        let film = Film {
            kind,
            size: (args.width, args.height),
            from: args.from,
            seconds: args.seconds,
            frames: args.frames,
            camera: args.camera.clone(),
        };
        let (env, filmed) = shoot(args, &film)?;
        let out = args.out.clone().unwrap_or_else(|| PathBuf::from(format!("{env}.png")));
        write_atomic(&out, &kind.encode(&filmed.frames, film.size, filmed.end)?)?;
        tell(args, &env, &filmed, &out, output);
        Ok(())
    }

    /// The environment's name, and the pictures.
    fn shoot(args: &RenderArgs, film: &Film) -> Result<(String, Filmed)> {
        let Some(policy) = &args.policy else {
            let physics = args.set.iter().map(|pair| assignment(pair)).collect::<Result<_>>()?;
            let name = args.env.as_deref().unwrap_or_default();
            let env = Decision::new(env::make(name, &physics)?, 1);
            let mut player = RandomPlayer::new(&env);
            return Ok((name.to_string(), film.shoot(&mut player, env, args.seed, None)?));
        };
        if !fleet::seeds_in(policy).is_empty() {
            return Err(Error::usage(format!("{} holds several seeds: name one of them", policy.display())));
        }
        let changed = Changed { env: args.env.as_deref(), set: &args.set };
        let (done, _) = with_player(policy, changed, |player, env| {
            if args.best_of.is_some() && !player.is_critical() {
                return Err(Error::usage(format!(
                    "--best-of: {} has no critic to choose by, so leave it out or export the policy with its critic",
                    policy.display()
                )));
            }
            Ok((env.spec().name.clone(), film.shoot(player, env, args.seed, args.best_of)?))
        })?;
        Ok(done)
    }

    fn tell(args: &RenderArgs, env: &str, filmed: &Filmed, out: &Path, output: Output) {
        let from = filmed.frames.first().map_or(0.0, |frame| frame.time);
        let who = match (&args.policy, args.best_of) {
            (None, _) => "random actions".to_string(),
            (Some(policy), None) => policy.display().to_string(),
            (Some(policy), Some(n)) => format!("{}, best of {n}", policy.display()),
        };
        if let Some(fault) = filmed.fault {
            note(&format!("the episode ended after {:.2} s: {fault}", filmed.lasted));
        }
        output.line(&format!(
            "{}: {} frames of {env} from {from:.2} s to {:.2} s by camera {}; {who}, seed {}, return of the episode {:.1}",
            out.display(),
            filmed.frames.len(),
            filmed.end,
            filmed.camera,
            args.seed,
            filmed.total
        ));
        output.object(&json!({
            "out": out,
            "env": env,
            "policy": args.policy,
            "best_of": args.best_of,
            "seed": args.seed,
            "frames": filmed.frames.len(),
            "width": args.width,
            "height": args.height,
            "camera": filmed.camera,
            "from": from,
            "to": filmed.end,
            "return": filmed.total,
            "seconds": filmed.lasted,
            "fault": filmed.fault,
        }));
    }
}
