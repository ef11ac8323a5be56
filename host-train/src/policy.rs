//! Policies on the host: artefact bytes with an owner, made from an agent or read from a file, and their decisions.
//!
//! Decisions are flowlet's own, on the bytes that are flashed; nothing here computes an action by other means. Errors
//! are one sentence with the file's name. No panics. Deterministic.

use crate::agent::rfm::Rfm;
use crate::config::{self, Config, RfmConfig, TrainConfig};
use crate::env::{Decision, Env, EnvSpec};
use crate::nn::velocity::VelocityNet;
use crate::noise::Noise;
use crate::normaliser::Normaliser;
use crate::run::RunDir;
use crate::{Error, Result};
use flowlet::flow::{Plan, Schedule, Solver, Source};
use flowlet::net::{Activation, CriticShape, Trunk, Velocity, VelocityShape};
use flowlet::policy::{
    Artefact, BestOfScratch, CriticManifest, Manifest, Policy, PolicyError, PolicyScratch, Squash, StepEntry, Weights,
};
use rand_xoshiro::Xoshiro128PlusPlus;
use std::path::{Path, PathBuf};
use zerocopy::IntoBytes;

/// Stream of the seed that the self-test vector is drawn from.
const STREAM_SELF_TEST: u64 = 200;

/// The bytes of an artefact at an address divisible by four.
#[derive(Clone, Debug)]
pub struct ArtefactBytes {
    words: Vec<u32>,
    len: usize,
}

impl ArtefactBytes {
    /// A copy of `bytes`, unchecked.
    pub fn new(bytes: &[u8]) -> Self {
        let mut owned = Self::zeroed(bytes.len());
        owned.as_mut_slice().copy_from_slice(bytes);
        owned
    }

    /// Reads and checks the artefact at `path`.
    pub fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let bytes = std::fs::read(path).map_err(|e| {
            Error::usage(format!("cannot read the policy {shown} ({e}): give the path of a policy.flw"))
        })?;
        let owned = Self::new(&bytes);
        match Artefact::new(owned.as_slice()) {
            Ok(_) => Ok(owned),
            Err(e) => Err(Error::failure(format!("{shown}: {e}"))),
        }
    }

    /// Where the policy of `path` lies: the file itself or, of a run's folder, its `policy.flw`. Refuses a run whose
    /// algorithm has none.
    pub fn place(path: &Path) -> Result<PathBuf> {
        if !path.is_dir() {
            return Ok(path.to_path_buf());
        }
        let algo = RunDir::open(path).and_then(|run| run.config(None)).map_or("rfm", |config| config.algo());
        if algo != "rfm" {
            return Err(Error::usage(format!(
                "{} is a run of {algo}, and only rfm has an artefact: give a run of rfm; `eval --policy {}` plays this one",
                path.display(),
                path.display()
            )));
        }
        Ok(path.join("policy.flw"))
    }

    /// The checked view.
    pub fn artefact(&self) -> Result<Artefact<'_>> {
        Artefact::new(self.as_slice()).map_err(|e| Error::failure(e.to_string()))
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.words.as_slice().as_bytes()[..self.len]
    }

    fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.words.as_mut_slice().as_mut_bytes()[..self.len]
    }

    fn zeroed(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(4)], len }
    }

    /// Encodes a manifest.
    pub fn encode(manifest: &Manifest<'_>) -> Result<Self> {
        let mut bytes = Self::zeroed(manifest.encoded_len());
        let mut memory = vec![0.0; manifest.scratch_len()];
        let encoded = manifest.encode(bytes.as_mut_slice(), &mut memory);
        encoded.map_err(|e| Error::failure(format!("the policy cannot be exported: {e}")))?;
        Ok(bytes)
    }

    /// The artefact of an agent and its observation normaliser: what a run writes as `policy.flw`.
    pub fn of_agent(config: &Config, agent: &Rfm, normaliser: &Normaliser) -> Result<Self> {
        Self::of_agent_in(config, agent, normaliser, config.make_env()?)
    }

    /// As [`Self::of_agent`], for an environment that the command line need not know.
    pub fn of_agent_in(config: &Config, agent: &Rfm, normaliser: &Normaliser, env: Box<dyn Env>) -> Result<Self> {
        let mut env = Decision::new(env, config.env.action_repeat);
        let mut noise = Noise::new(config.seed, STREAM_SELF_TEST);
        let spec = env.spec().clone();
        let mut observation = vec![0.0; spec.obs()];
        env.reset(noise.rng())?;
        env.observe(&mut observation);
        let mut latent = vec![0.0; spec.act()];
        noise.gaussian(&mut latent);
        let rfm = agent.config();
        let frequencies: Vec<f32> = agent.actor().shape().frequencies.clone();
        let (params, critics) = (agent.actor_params(), [agent.critic_params(0), agent.critic_params(1)].concat());
        let obs_names: Vec<&str> = spec.obs_names.iter().map(String::as_str).collect();
        let act_names: Vec<&str> = spec.act_names.iter().map(String::as_str).collect();
        Self::encode(&Manifest {
            name: &spec.name,
            period_us: period_us(&env)?,
            shape: velocity_shape(rfm, &spec),
            frequencies: &frequencies,
            weights: Weights::F32(&params),
            plan: Plan {
                solver: Solver::Euler,
                steps: rfm.integration_steps,
                t_start: rfm.t_min as f32,
                t_end: rfm.t_max as f32,
                latent_clip: rfm.latent_clip as f32,
            },
            source: Source::Gaussian,
            schedule: Schedule::Linear,
            obs_names: &obs_names,
            act_names: &act_names,
            obs_mean: normaliser.mean(),
            obs_scale: normaliser.scale(),
            obs_clip: config.env.obs_clip,
            low: &spec.low,
            high: &spec.high,
            squash: Squash::Tanh,
            // The artefact's critics have plain layers.
            critics: (!rfm.train.critic_layer_norm).then(|| CriticManifest {
                shape: critic_shape(&rfm.train, &spec),
                count: 2,
                params: &critics,
                particles: rfm.particles,
                temperature: agent.lambda(),
            }),
            step_table: &[],
            test_observation: &observation,
            test_noise: &latent,
        })
    }

    /// The same policy with another plan, or without its critics.
    pub fn revised(&self, plan: Plan, keep_critics: bool) -> Result<Self> {
        let old = self.artefact()?;
        // Measured with this plan at other numbers of steps: they hold for as long as the rest of it stays.
        let kept = Plan { steps: plan.steps, ..*old.plan() } == plan;
        let steps: Vec<StepEntry> = old.step_table().filter(|_| kept).collect();
        let net = old.velocity();
        self.remade((*net.shape(), net.frequencies(), weights(&old)), plan, keep_critics, &steps)
    }

    /// The same policy with another step table.
    pub fn with_step_table(&self, steps: &[StepEntry]) -> Result<Self> {
        let old = self.artefact()?;
        let net = old.velocity();
        self.remade((*net.shape(), net.frequencies(), weights(&old)), *old.plan(), true, steps)
    }

    /// The same policy with its velocity network in int8, as the words of `flowlet::net::quantise`. Without a step table, which
    /// was measured with the other network.
    pub fn with_words(&self, words: &[u32]) -> Result<Self> {
        let old = self.artefact()?;
        let net = old.velocity();
        self.remade((*net.shape(), net.frequencies(), Weights::Int8(words)), *old.plan(), true, &[])
    }

    /// The same policy with other parameters of its network, which is in f32.
    pub fn with_params(&self, params: &[f32]) -> Result<Self> {
        let old = self.artefact()?;
        let net = old.velocity();
        self.remade((*net.shape(), net.frequencies(), Weights::F32(params)), *old.plan(), true, &[])
    }

    /// The same policy with a network that knows no time and is integrated in one Euler step.
    pub fn one_step(&self, net: &VelocityNet, keep_critics: bool) -> Result<Self> {
        let old = self.artefact()?;
        let hidden = net.shape().hidden;
        let shape = VelocityShape {
            hidden: hidden.width,
            layers: hidden.layers,
            frequencies: net.shape().frequencies.len(),
            ..*old.velocity().shape()
        };
        let plan = Plan { solver: Solver::Euler, steps: 1, t_start: 0.0, t_end: 1.0, ..*old.plan() };
        self.remade((shape, &net.shape().frequencies, Weights::F32(&net.exported())), plan, keep_critics, &[])
    }

    fn remade(
        &self,
        (shape, frequencies, weights): (VelocityShape, &[f32], Weights<'_>),
        plan: Plan,
        keep_critics: bool,
        step_table: &[StepEntry],
    ) -> Result<Self> {
        let old = self.artefact()?;
        let (obs_names, act_names): (Vec<_>, Vec<_>) = (old.obs_names().collect(), old.act_names().collect());
        let (observation, noise, ..) = old.self_test();
        let first = old.critics().next().filter(|_| keep_critics);
        let critics: Vec<f32> = old.critics().flat_map(|c| c.params()).copied().collect();
        Self::encode(&Manifest {
            name: old.name(),
            period_us: old.period_us(),
            shape,
            frequencies,
            weights,
            plan,
            source: old.source(),
            schedule: old.schedule(),
            obs_names: &obs_names,
            act_names: &act_names,
            obs_mean: old.normalizer().mean,
            obs_scale: old.normalizer().scale,
            obs_clip: old.normalizer().clip,
            low: old.range().low,
            high: old.range().high,
            squash: old.range().squash,
            critics: first.map(|critic| CriticManifest {
                shape: *critic.shape(),
                count: old.critics().count(),
                params: &critics,
                particles: old.particles(),
                temperature: old.temperature(),
            }),
            step_table,
            test_observation: observation,
            test_noise: noise,
        })
    }
}

/// The velocity network's numbers, as they stand in the artefact.
fn weights<'a>(artefact: &Artefact<'a>) -> Weights<'a> {
    match artefact.velocity() {
        Velocity::F32(net) => Weights::F32(net.params()),
        Velocity::Int8(net) => Weights::Int8(net.words()),
    }
}

/// The control period of an environment's decisions, which an artefact holds in whole microseconds.
fn period_us(env: &Decision) -> Result<u32> {
    let period = (env.period() * 1e6).round();
    if !(1.0..=3.6e9).contains(&period) {
        return Err(Error::usage(format!(
            "a decision of {} s cannot be stored: choose env.action_repeat and the time step so that it lasts between \
             1 microsecond and 1 hour",
            env.period()
        )));
    }
    Ok(period as u32)
}

fn activation(a: config::Activation) -> Activation {
    match a {
        config::Activation::Relu => Activation::Relu,
        config::Activation::Tanh => Activation::Tanh,
        config::Activation::Silu => Activation::Silu,
        config::Activation::Gelu => Activation::Gelu,
    }
}

/// flowlet's shape of the velocity network that a configuration asks for.
pub fn velocity_shape(rfm: &RfmConfig, spec: &EnvSpec) -> VelocityShape {
    VelocityShape {
        obs: spec.obs(),
        act: spec.act(),
        hidden: rfm.train.actor_hidden,
        layers: rfm.train.actor_layers,
        frequencies: rfm.frequencies.len(),
        activation: activation(rfm.train.activation),
        trunk: match rfm.train.trunk {
            config::Trunk::Plain => Trunk::Plain,
            config::Trunk::Residual => Trunk::Residual,
        },
    }
}

/// flowlet's shape of the critics that a configuration asks for.
pub fn critic_shape(train: &TrainConfig, spec: &EnvSpec) -> CriticShape {
    CriticShape {
        obs: spec.obs(),
        act: spec.act(),
        hidden: train.critic_hidden,
        layers: train.critic_layers,
        activation: activation(train.critic_activation),
    }
}

/// A policy with memory for its decisions.
pub struct HostPolicy<'a> {
    policy: Policy<'a>,
    memory: Vec<f32>,
    selection: Vec<f32>,
}

impl<'a> HostPolicy<'a> {
    /// The policy of an artefact with its own plan.
    pub fn new(artefact: Artefact<'a>) -> Result<Self> {
        let policy = Policy::new(artefact).map_err(failure)?;
        let mut memory = vec![0.0; PolicyScratch::len(artefact.velocity().shape(), policy.plan())];
        let selection =
            artefact.critics().next().map_or(0, |c| BestOfScratch::len(artefact.velocity().shape(), c.shape(), 2));
        policy.prepare(&mut carve(&policy, &mut memory)?).map_err(failure)?;
        Ok(Self { policy, memory, selection: vec![0.0; selection] })
    }

    /// The view inside.
    pub fn policy(&self) -> &Policy<'a> {
        &self.policy
    }

    /// Whether a critic travels along, so that the best of several samples can be chosen.
    pub fn has_critic(&self) -> bool {
        self.policy.artefact().critics().next().is_some()
    }

    /// One plain sample: what a robot without a critic runs.
    pub fn act(&mut self, observation: &[f32], rng: &mut Xoshiro128PlusPlus, action: &mut [f32]) -> Result<()> {
        let mut scratch = carve(&self.policy, &mut self.memory)?;
        self.policy.act(observation, rng, &mut scratch, action).map_err(failure)
    }

    /// The best of `n` samples by the smaller critic.
    pub fn act_best_of(
        &mut self,
        observation: &[f32],
        n: usize,
        rng: &mut Xoshiro128PlusPlus,
        action: &mut [f32],
    ) -> Result<()> {
        let critic = self.policy.artefact().critics().next().ok_or_else(|| failure(PolicyError::NoCritic))?;
        let mut scratch = carve(&self.policy, &mut self.memory)?;
        let mut selection = select(&self.policy, critic.shape(), &mut self.selection)?;
        let chosen = self.policy.act_best_of(observation, n, rng, &mut scratch, &mut selection, action);
        chosen.map(|_| ()).map_err(failure)
    }

    /// Runs the artefact's self-test, its critics included.
    pub fn self_test(&mut self) -> Result<()> {
        let artefact = *self.policy.artefact();
        let mut action = vec![0.0; artefact.velocity().shape().act];
        let mut scratch = carve(&self.policy, &mut self.memory)?;
        let tested = match artefact.critics().next() {
            None => self.policy.self_test(&mut scratch, &mut action),
            Some(critic) => {
                let mut selection = select(&self.policy, critic.shape(), &mut self.selection)?;
                self.policy.self_test_critics(&mut scratch, &mut selection, &mut action)
            }
        };
        tested.map_err(failure)
    }
}

fn carve<'s>(policy: &Policy<'_>, memory: &'s mut [f32]) -> Result<PolicyScratch<'s>> {
    PolicyScratch::carve(policy.artefact().velocity().shape(), policy.plan(), memory)
        .ok_or_else(|| Error::failure("the policy's memory is too short"))
}

fn select<'s>(policy: &Policy<'_>, critic: &CriticShape, memory: &'s mut [f32]) -> Result<BestOfScratch<'s>> {
    BestOfScratch::carve(policy.artefact().velocity().shape(), critic, 2, memory)
        .ok_or_else(|| Error::failure("the critics' memory is too short"))
}

fn failure(error: PolicyError) -> Error {
    Error::failure(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;
    use rand_xoshiro::rand_core::SeedableRng;

    fn artefact(set: &[&str], preset: &str) -> (Config, Rfm, ArtefactBytes) {
        let set: Vec<String> = set.iter().map(ToString::to_string).collect();
        let sources = Sources { env: Some("cartpole"), preset: Some(preset), set: &set, ..Sources::default() };
        let config = Config::resolve(&sources).unwrap();
        let agent = Rfm::new(config.rfm().unwrap(), 5, 1, 3);
        let bytes = ArtefactBytes::of_agent(&config, &agent, &Normaliser::new(&config.env)).unwrap();
        (config, agent, bytes)
    }

    #[test]
    fn an_agent_becomes_an_artefact_with_everything_in_it() {
        let (_, agent, bytes) = artefact(&[], "default");
        let view = bytes.artefact().unwrap();
        assert_eq!((view.name(), view.period_us()), ("cartpole", 40_000));
        assert_eq!(view.velocity().as_f32().unwrap().params().len(), agent.actor_params().len());
        assert_eq!((view.critics().count(), view.particles()), (2, agent.config().particles));
        assert_eq!(view.plan().steps, agent.config().integration_steps);
        let mut policy = HostPolicy::new(view).unwrap();
        policy.self_test().unwrap();
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(1);
        let (mut one, mut best) = ([0.0], [0.0]);
        policy.act(&[0.1; 5], &mut rng, &mut one).unwrap();
        policy.act_best_of(&[0.1; 5], 16, &mut rng, &mut best).unwrap();
        assert!(one[0].abs() <= 1.0 && best[0].abs() <= 1.0);
        assert!(policy.act(&[f32::NAN; 5], &mut rng, &mut one).unwrap_err().to_string().contains("channel 0"));
    }

    #[test]
    fn a_run_of_another_algorithm_has_no_artefact() {
        let root = tempfile::tempdir().unwrap();
        for algo in ["rfm", "sac"] {
            let config = Config::resolve(&Sources { algo: Some(algo), ..Sources::default() }).unwrap();
            RunDir::create(Some(&root.path().join(algo)), &config).unwrap();
        }
        let rfm = root.path().join("rfm");
        assert_eq!(ArtefactBytes::place(&rfm).unwrap(), rfm.join("policy.flw"));
        let refusal = ArtefactBytes::place(&root.path().join("sac")).unwrap_err().to_string();
        assert!(refusal.contains("only rfm") && refusal.contains("eval --policy"), "{refusal}");
    }

    #[test]
    fn a_revised_policy_keeps_its_weights() {
        let (_, _, bytes) = artefact(&[], "default");
        let view = bytes.artefact().unwrap();
        let plan = Plan { solver: Solver::Heun, steps: 2, ..*view.plan() };
        let revised = bytes.revised(plan, false).unwrap();
        let new = revised.artefact().unwrap();
        assert_eq!((new.plan(), new.critics().count(), new.particles()), (&plan, 0, 0));
        assert_eq!(new.velocity().as_f32().unwrap().params(), view.velocity().as_f32().unwrap().params());
        HostPolicy::new(new).unwrap().self_test().unwrap();
        let same = bytes.revised(*view.plan(), true).unwrap();
        assert_eq!(same.as_slice(), bytes.as_slice());
    }

    #[test]
    fn the_papers_network_fits_the_format() {
        let (_, _, bytes) = artefact(&["rfm.actor_hidden=32", "rfm.critic_hidden=32"], "paper");
        let view = bytes.artefact().unwrap();
        assert_eq!((view.velocity().shape().trunk, view.velocity().shape().frequencies), (Trunk::Residual, 64));
        HostPolicy::new(view).unwrap().self_test().unwrap();
    }

    #[test]
    fn the_self_test_covers_the_critics() {
        let (_, _, bytes) = artefact(&[], "default");
        // The last eight bytes before the CRC are the critics' expected values.
        let mut wrong = bytes.clone();
        let end = wrong.len - 4;
        wrong.as_mut_slice()[end - 1] ^= 0x10;
        let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(&wrong.as_slice()[..end]);
        wrong.as_mut_slice()[end..].copy_from_slice(&crc.to_le_bytes());
        let error = HostPolicy::new(wrong.artefact().unwrap()).unwrap().self_test().unwrap_err();
        assert!(error.to_string().contains("self-test"), "{error}");
    }
}
