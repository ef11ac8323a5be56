//! Evaluation: episodes played with a policy whose start states and noise depend on the seed and the episode alone.
//!
//! A flow policy is played by flowlet's own sampler on the artefact's bytes ([`ArtefactPlayer`]), so that what is
//! evaluated is what is flashed; the other algorithms, which have no artefact, by the agent ([`AgentPlayer`]). Episode `i`
//! of a seed always has the same start state and the same noise, whatever the policy: comparisons are paired. Returns are
//! unscaled. The plain sample and the greedy choice are played separately; where the critics do not travel in the artefact the
//! agent makes the greedy choice ([`AssistedPlayer`]).

use crate::agent::Agent;
use crate::env::{self, Decision, EnvSpec};
use crate::noise::Noise;
use crate::normaliser::Normaliser;
use crate::policy::HostPolicy;
use crate::stats::Summary;
use crate::transitions::Recorded;
use crate::{Error, Result};
use flowlet::policy::Artefact;
use rand_xoshiro::rand_core::SeedableRng;
use rand_xoshiro::{Xoshiro128PlusPlus, Xoshiro256PlusPlus};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

/// The share of each way among episodes.
pub type Shares<'a> = BTreeMap<&'a str, f64>;

/// What an evaluation found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Return of each episode by plain samples: what a robot without a critic runs.
    pub returns: Vec<f64>,
    /// Return of each episode by the greedy choice, the best of several samples by the critic (for `sac` the mean action);
    /// none where no critic travels along.
    pub best_of: Option<Vec<f64>>,
    /// The way that each plain episode took, where the environment has several, and what ended those that physics broke
    /// off ([`Decision::way`]).
    pub ways: Vec<String>,
    /// The same of the greedy episodes.
    pub best_of_ways: Vec<String>,
}

impl Evaluation {
    /// Mean and interval of the plain returns.
    pub fn plain(&self) -> Summary {
        Summary::of(&self.returns)
    }

    /// Mean and interval of the best-of returns.
    pub fn best(&self) -> Option<Summary> {
        self.best_of.as_deref().map(Summary::of)
    }

    /// Share of the episodes that each way took, of the plain and of the greedy ones; none where there is one way only.
    pub fn shares(&self) -> Option<(Shares<'_>, Shares<'_>)> {
        fn of(ways: &[String], episodes: usize) -> Shares<'_> {
            let mut shares = BTreeMap::new();
            for way in ways {
                *shares.entry(way.as_str()).or_insert(0.0) += 1.0 / episodes as f64;
            }
            shares
        }
        let greedy = self.best_of.as_ref().map_or(0, Vec::len);
        let any = !self.ways.is_empty() || !self.best_of_ways.is_empty();
        any.then(|| (of(&self.ways, self.returns.len()), of(&self.best_of_ways, greedy)))
    }
}

/// How to evaluate.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    /// Episodes, at least one.
    pub episodes: usize,
    /// Seed of start states and noise.
    pub seed: u64,
    /// Samples of the best-of column.
    pub best_of: usize,
}

/// The environment an artefact was trained on (or `name`), with the action repeat that its period asks for.
pub fn env_for(artefact: &Artefact<'_>, name: Option<&str>, physics: &BTreeMap<String, f64>) -> Result<Decision> {
    let name = name.unwrap_or(artefact.name());
    let inner = env::make(name, physics)?;
    let spec = inner.spec();
    fits(artefact.name(), (artefact.obs_names().collect(), artefact.act_names().collect()), spec)?;
    let period = f64::from(artefact.period_us()) / 1e6;
    let repeat = (period / spec.control_dt).round().max(1.0);
    // The artefact holds whole microseconds, so half of one may be lost.
    if (repeat * spec.control_dt - period).abs() > 0.6e-6 {
        return Err(Error::usage(format!(
            "the policy decides every {period} s, which is no multiple of {name}'s control step of {} s: \
             use the time step it was trained with",
            spec.control_dt
        )));
    }
    Ok(Decision::new(inner, repeat as usize))
}

/// Refuses a policy of the environment `own` with these channels, observed and acted on, where those of `spec` are others.
pub fn fits(own: &str, (obs, act): (Vec<&str>, Vec<&str>), spec: &EnvSpec) -> Result<()> {
    let name = &spec.name;
    if (spec.obs(), spec.act()) != (obs.len(), act.len()) {
        return Err(Error::usage(format!(
            "the policy is for {own} with {} observations and {} actions, and {name} has {} and {}: choose its own environment",
            obs.len(),
            act.len(),
            spec.obs(),
            spec.act()
        )));
    }
    // As many channels do not make it the same robot.
    let mut names = obs.into_iter().zip(&spec.obs_names).chain(act.into_iter().zip(&spec.act_names));
    match names.find(|(own, other)| own != other) {
        None => Ok(()),
        Some((channel, other)) => Err(Error::usage(format!(
            "the policy is for {own}: its channel {channel} is {other} in {name}, choose its own environment"
        ))),
    }
}

/// A policy that plays episodes.
pub trait Player {
    /// Whether it has a greedy choice beside the plain sample.
    fn is_critical(&self) -> bool;
    /// An episode begins: all its noise follows from `number`.
    fn begin(&mut self, number: u64);
    /// The plant's action for a raw observation: a plain sample, or the greedy choice from so many.
    fn act(&mut self, observation: &[f32], best_of: Option<usize>, action: &mut [f32]) -> Result<()>;
}

/// Plays an artefact by flowlet's sampler.
pub struct ArtefactPlayer<'a> {
    policy: HostPolicy<'a>,
    rng: Xoshiro128PlusPlus,
}

impl<'a> ArtefactPlayer<'a> {
    /// With the artefact's own plan.
    pub fn new(artefact: Artefact<'a>) -> Result<Self> {
        Ok(Self { policy: HostPolicy::new(artefact)?, rng: Xoshiro128PlusPlus::seed_from_u64(0) })
    }
}

impl Player for ArtefactPlayer<'_> {
    fn is_critical(&self) -> bool {
        self.policy.has_critic()
    }

    fn begin(&mut self, number: u64) {
        self.rng = Xoshiro128PlusPlus::seed_from_u64(number);
    }

    fn act(&mut self, observation: &[f32], best_of: Option<usize>, action: &mut [f32]) -> Result<()> {
        match best_of {
            None => self.policy.act(observation, &mut self.rng, action),
            Some(n) => self.policy.act_best_of(observation, n, &mut self.rng, action),
        }
    }
}

/// Plays an agent; its training is not disturbed.
pub struct AgentPlayer<'a> {
    agent: &'a mut dyn Agent,
    normaliser: &'a Normaliser,
    low: Vec<f32>,
    high: Vec<f32>,
    noise: Noise,
    normalised: Vec<f32>,
}

impl<'a> AgentPlayer<'a> {
    /// For an environment with the action limits of `env`.
    pub fn new(agent: &'a mut dyn Agent, normaliser: &'a Normaliser, env: &Decision) -> Self {
        let (low, high) = (env.spec().low.clone(), env.spec().high.clone());
        let normalised = vec![0.0; env.spec().obs()];
        Self { agent, normaliser, low, high, noise: Noise::new(0, 0), normalised }
    }
}

impl Player for AgentPlayer<'_> {
    fn is_critical(&self) -> bool {
        true
    }

    fn begin(&mut self, number: u64) {
        self.noise = Noise::new(number, 0);
    }

    fn act(&mut self, observation: &[f32], best_of: Option<usize>, action: &mut [f32]) -> Result<()> {
        self.normalised.copy_from_slice(observation);
        self.normaliser.apply(&mut self.normalised);
        self.agent.evaluate(&self.normalised, best_of.unwrap_or(1), &mut self.noise, action);
        for ((a, low), high) in action.iter_mut().zip(&self.low).zip(&self.high) {
            *a = low + (*a + 1.0) * 0.5 * (high - low);
        }
        Ok(())
    }
}

/// Plays an artefact whose critics do not travel with it: plain samples by flowlet's sampler, the greedy choice by the
/// agent that it is of.
pub struct AssistedPlayer<'a> {
    /// For plain samples.
    pub plain: ArtefactPlayer<'a>,
    /// For the greedy choice.
    pub greedy: AgentPlayer<'a>,
}

impl Player for AssistedPlayer<'_> {
    fn is_critical(&self) -> bool {
        true
    }

    fn begin(&mut self, number: u64) {
        self.plain.begin(number);
        self.greedy.begin(number);
    }

    fn act(&mut self, observation: &[f32], best_of: Option<usize>, action: &mut [f32]) -> Result<()> {
        match best_of {
            None => self.plain.act(observation, None, action),
            Some(n) => self.greedy.act(observation, Some(n), action),
        }
    }
}

/// Plays the episodes of an artefact.
pub fn evaluate(artefact: &Artefact<'_>, env: &mut Decision, protocol: Protocol) -> Result<Evaluation> {
    evaluate_until(&mut ArtefactPlayer::new(*artefact)?, env, protocol, &AtomicBool::new(false))
}

/// Plays the episodes, unless `stop` is raised before the last of them has begun.
pub fn evaluate_until(
    player: &mut dyn Player,
    env: &mut Decision,
    protocol: Protocol,
    stop: &AtomicBool,
) -> Result<Evaluation> {
    let critical = player.is_critical();
    let mut play = |best_of: Option<usize>| -> Result<(Vec<f64>, Vec<Option<&'static str>>)> {
        let mut one = |i: usize| {
            if stop.load(Ordering::SeqCst) {
                return Err(Error::Interrupted(
                    "stopped before the evaluation was done; the policy so far is kept".to_string(),
                ));
            }
            episode(player, env, (protocol.seed, i as u64), best_of, &mut |_| {})
        };
        let played = (0..protocol.episodes).map(&mut one).collect::<Result<Vec<_>>>()?;
        Ok(played.into_iter().unzip())
    };
    let (returns, ways) = play(None)?;
    let (best_of, best_of_ways) = if critical { Some(play(Some(protocol.best_of))?) } else { None }.unzip();
    Ok(Evaluation { returns, best_of, ways: known(ways), best_of_ways: known(best_of_ways.unwrap_or_default()) })
}

/// The transitions of so many episodes by plain samples, as `train --replay` takes them.
pub fn record(player: &mut dyn Player, env: &mut Decision, episodes: usize, seed: u64) -> Result<Vec<Recorded>> {
    let mut rows = Vec::new();
    play_plain(player, env, episodes, seed, &mut |row| rows.push(row))?;
    Ok(rows)
}

/// So many episodes by plain samples alone; `seen` gets each transition.
pub fn play_plain(
    player: &mut dyn Player,
    env: &mut Decision,
    episodes: usize,
    seed: u64,
    seen: &mut dyn FnMut(Recorded),
) -> Result<Evaluation> {
    let played =
        (0..episodes).map(|i| episode(player, env, (seed, i as u64), None, seen)).collect::<Result<Vec<_>>>()?;
    let (returns, ways) = played.into_iter().unzip();
    Ok(Evaluation { returns, best_of: None, ways: known(ways), best_of_ways: Vec::new() })
}

/// The ways of those episodes that have one.
fn known(ways: Vec<Option<&'static str>>) -> Vec<String> {
    ways.into_iter().flatten().map(str::to_string).collect()
}

/// One episode by its actions: from [`start`] they play it again.
#[derive(Clone, Debug)]
pub struct Episode {
    /// Its return.
    pub total: f64,
    /// Its decisions.
    pub rows: Vec<Recorded>,
}

/// The first episode of a seed, by plain samples or the greedy choice from so many.
pub fn recorded(player: &mut dyn Player, env: &mut Decision, seed: u64, best_of: Option<usize>) -> Result<Episode> {
    let mut rows = Vec::new();
    let (total, _) = episode(player, env, (seed, 0), best_of, &mut |row| rows.push(row))?;
    Ok(Episode { total, rows })
}

/// The generator that an episode of a seed is reset with.
pub fn start(seed: u64, index: u64) -> Xoshiro256PlusPlus {
    Xoshiro256PlusPlus::seed_from_u64(number(seed, index))
}

/// SplitMix64 inside seed_from_u64 spreads neighbouring numbers; an odd multiplier keeps (seed, index) apart.
fn number(seed: u64, index: u64) -> u64 {
    seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(index)
}

/// The return of one episode and the way it took; `seen` gets each transition.
fn episode(
    player: &mut dyn Player,
    env: &mut Decision,
    (seed, index): (u64, u64),
    best_of: Option<usize>,
    seen: &mut dyn FnMut(Recorded),
) -> Result<(f64, Option<&'static str>)> {
    env.reset(&mut start(seed, index))?;
    player.begin(number(seed, index));
    let (obs, act) = (env.spec().obs(), env.spec().act());
    let (mut observation, mut action, mut plant_action) = (vec![0.0f32; obs], vec![0.0f32; act], vec![0.0f64; act]);
    let mut total = 0.0;
    env.observe(&mut observation);
    loop {
        player.act(&observation, best_of, &mut action)?;
        plant_action.iter_mut().zip(&action).for_each(|(p, a)| *p = f64::from(*a));
        let outcome = env.step(&plant_action)?;
        total += outcome.reward;
        let obs = observation.clone();
        env.observe(&mut observation);
        seen(Recorded {
            obs,
            action: plant_action.clone(),
            reward: outcome.reward,
            next_obs: observation.clone(),
            terminated: outcome.terminated,
        });
        if outcome.terminated || outcome.truncated {
            return Ok((total, env.way()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::rfm::Rfm;
    use crate::config::{Config, Sources};
    use crate::policy::ArtefactBytes;

    fn untrained(config: &Config) -> ArtefactBytes {
        let agent = Rfm::new(config.rfm().unwrap(), 3, 1, 1);
        ArtefactBytes::of_agent(config, &agent, &Normaliser::new(&config.env)).unwrap()
    }

    /// The agent and its artefact are one policy: with other random numbers, but the same untrained return.
    #[test]
    fn an_agent_plays_as_its_artefact_does() {
        let config = Config::resolve(&Sources { env: Some("pendulum"), ..Sources::default() }).unwrap();
        let bytes = untrained(&config);
        let view = bytes.artefact().unwrap();
        let mut env = env_for(&view, None, &BTreeMap::new()).unwrap();
        let protocol = Protocol { episodes: 60, seed: 1, best_of: 4 };
        let flashed = evaluate(&view, &mut env, protocol).unwrap();
        let mut agent = Rfm::new(config.rfm().unwrap(), 3, 1, 1);
        let normaliser = Normaliser::new(&config.env);
        let mut player = AgentPlayer::new(&mut agent, &normaliser, &env);
        let mut again = env_for(&view, None, &BTreeMap::new()).unwrap();
        let played = evaluate_until(&mut player, &mut again, protocol, &AtomicBool::new(false)).unwrap();
        // The start states are the same ones; three standard errors of the difference that the noise makes.
        let difference: Vec<f64> = flashed.returns.iter().zip(&played.returns).map(|(a, b)| a - b).collect();
        let difference = Summary::of(&difference);
        assert!(difference.mean.abs() < 1.5 * difference.ci95, "{difference:?}");
        assert_eq!(played.best_of.unwrap().len(), 60);
    }

    #[test]
    fn episodes_are_paired_and_repeatable() {
        let config = Config::resolve(&Sources { env: Some("pendulum"), ..Sources::default() }).unwrap();
        let bytes = untrained(&config);
        let view = bytes.artefact().unwrap();
        let mut env = env_for(&view, None, &BTreeMap::new()).unwrap();
        let run =
            |env: &mut Decision, episodes, seed| evaluate(&view, env, Protocol { episodes, seed, best_of: 2 }).unwrap();
        let four = run(&mut env, 4, 1);
        assert_eq!(four, run(&mut env, 4, 1));
        assert_eq!(run(&mut env, 2, 1).returns, four.returns[..2]);
        assert_ne!(run(&mut env, 4, 2).returns, four.returns);
        assert!(four.returns.iter().all(|r| (-2000.0..0.0).contains(r)));
        assert_eq!(four.best_of.unwrap().len(), 4);
    }

    #[test]
    fn a_policy_of_another_plant_or_period_is_refused() {
        let config = Config::resolve(&Sources { env: Some("pendulum"), ..Sources::default() }).unwrap();
        let bytes = untrained(&config);
        let view = bytes.artefact().unwrap();
        let Err(error) = env_for(&view, Some("cartpole"), &BTreeMap::new()) else { panic!("accepted") };
        assert!(error.to_string().contains("3 observations"), "{error}");
        // As many observations and fewer actions; as many of both, of another name.
        let spec = env::make("pendulum", &BTreeMap::new()).unwrap().spec().clone();
        let obs: Vec<&str> = spec.obs_names.iter().map(String::as_str).collect();
        for (act, words) in [(&["torque", "brake"][..], "3 observations and 2 actions"), (&["voltage"], "voltage")] {
            let error = fits("other", (obs.clone(), act.to_vec()), &spec).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("other") && error.contains("pendulum"), "{error}");
        }
        let slower = BTreeMap::from([("dt".to_string(), 0.03)]);
        let Err(error) = env_for(&view, None, &slower) else { panic!("accepted") };
        assert!(error.to_string().contains("0.05 s"), "{error}");
        let twice = BTreeMap::from([("dt".to_string(), 0.025)]);
        assert_eq!(env_for(&view, None, &twice).unwrap().action_repeat(), 2);
    }
}
