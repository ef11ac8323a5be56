//! Training on an environment of your own, through the library: a cart on a slide that is to be pushed to the middle.
//!
//! Implement `Env` (four functions suffice), make a configuration from it, train, evaluate with the sampler of the device,
//! write the artefact. About three seconds:
//!
//! ```sh
//! cargo run --release -p host-train --example custom_env
//! ```

use host_train::config::Config;
use host_train::env::{Constants, Decision, Env, EnvSpec, Step};
use host_train::evaluate::{Protocol, evaluate};
use host_train::policy::ArtefactBytes;
use host_train::train::Trainer;
use host_train::{Error, Result};
use plants::uniform_in;
use rand_xoshiro::Xoshiro256PlusPlus;
use std::path::Path;

/// A cart of 1 kg on a slide, pushed with up to 1 N.
struct Slide {
    spec: EnvSpec,
    position: f64,
    speed: f64,
}

impl Slide {
    fn new() -> Self {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        Self {
            spec: EnvSpec {
                name: "slide".into(),
                summary: "cart on a slide to push to the middle".into(),
                obs_names: names(&["position", "speed"]),
                act_names: names(&["force"]),
                low: vec![-1.0],
                high: vec![1.0],
                control_dt: 0.1,
                action_repeat: 1,
                time_limit: 50,
                reward_scale: 1.0,
                obs_mean: vec![0.0; 2],
                obs_scale: vec![1.0; 2],
                obs_clip: 10.0,
                obs_unknown: false,
                total_timesteps: 4_000,
                constants: Constants::Small,
            },
            position: 0.0,
            speed: 0.0,
        }
    }
}

impl Env for Slide {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    // What is random in an episode comes from the generator given here: that is what makes runs repeatable.
    fn reset(&mut self, rng: &mut Xoshiro256PlusPlus) -> Result<()> {
        self.position = uniform_in(rng, -1.0, 1.0);
        self.speed = 0.0;
        Ok(())
    }

    fn step(&mut self, action: &[f64]) -> Result<Step> {
        let dt = self.spec.control_dt;
        self.speed += dt * action[0].clamp(-1.0, 1.0);
        self.position += dt * self.speed;
        let reward = -(self.position * self.position) - 0.1 * self.speed * self.speed;
        Ok(Step { terminated: self.position.abs() > 3.0, ..Step::on(reward) })
    }

    fn observe(&self, out: &mut [f64]) {
        out.copy_from_slice(&[self.position, self.speed]);
    }
}

/// Trains, evaluates, writes `slide.flw` into `folder`; the mean returns before and after.
fn train(folder: &Path) -> Result<(f64, f64)> {
    let config = Config::for_env("default", "rfm", &Slide::new())?;
    let mut trainer = Trainer::with_envs(&config, |_| Ok(Box::new(Slide::new())))?;
    let artefact = |trainer: &Trainer| -> Result<ArtefactBytes> {
        let agent = trainer.agent().as_rfm().ok_or_else(|| Error::failure("only rfm has an artefact"))?;
        ArtefactBytes::of_agent_in(&config, agent, trainer.normaliser(), Box::new(Slide::new()))
    };
    let assess = |bytes: &ArtefactBytes| -> Result<f64> {
        let mut env = Decision::new(Box::new(Slide::new()), config.env.action_repeat);
        let protocol = Protocol { episodes: 20, seed: 0, best_of: config.eval.best_of };
        Ok(evaluate(&bytes.artefact()?, &mut env, protocol)?.plain().mean)
    };
    let before = assess(&artefact(&trainer)?)?;
    trainer.run(&mut ())?;
    let trained = artefact(&trainer)?;
    let after = assess(&trained)?;
    host_train::run::write_atomic(&folder.join("slide.flw"), trained.as_slice())?;
    Ok((before, after))
}

fn main() -> Result<()> {
    let folder = std::env::temp_dir();
    let (before, after) = train(&folder)?;
    println!("mean return {before:.2} before and {after:.2} after training");
    println!("policy      {}", folder.join("slide.flw").display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Doing nothing costs a third of a step's largest position cost, some 17 an episode.
    #[test]
    fn the_slide_is_learned_and_exported() {
        let folder = tempfile::tempdir().unwrap();
        let (before, after) = train(folder.path()).unwrap();
        assert!(before < -8.0 && after > -6.0, "{before} {after}");
        let policy = ArtefactBytes::read(&folder.path().join("slide.flw")).unwrap();
        assert_eq!(policy.artefact().unwrap().name(), "slide");
    }
}
