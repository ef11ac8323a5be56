//! `render`: an episode of a policy on a task of the Control Suite as a film strip or an animation, with the feature
//! `render`; a build without it says how to get it.

use super::{Output, RenderArgs};
use crate::{Error, Result};

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
    use std::path::PathBuf;

    /// Runs the command.
    pub(in crate::cli) fn run(args: &RenderArgs, output: Output) -> Result<()> {
        let kind = args.out.as_deref().map_or(Ok(Kind::Png), Kind::of)?;
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

    fn tell(args: &RenderArgs, env: &str, filmed: &Filmed, out: &std::path::Path, output: Output) {
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
