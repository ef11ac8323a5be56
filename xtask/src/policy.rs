//! Policies on the host: what the firmware does, done here, and untrained policies for the tests.

use crate::scenario;
use anyhow::{Context, Result, anyhow};
use flowlet::control::LentPolicy;
use flowlet::flow::{Plan, Schedule, Solver, Source};
use flowlet::math::Digest;
use flowlet::net::{Activation, Calibration, QuantisedNet, Trunk, VelocityShape, quantise};
use flowlet::policy::{Artefact, Manifest, Policy, PolicyScratch, Squash, Weights, action_digest};
use plants::Pendulum;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use rand_xoshiro::{Xoshiro128PlusPlus, Xoshiro256PlusPlus};
use std::fs;
use std::path::Path;
use zerocopy::IntoBytes;

/// Bytes at an address divisible by four, as the checked view needs them.
#[derive(Debug, Clone)]
pub struct Bytes {
    words: Vec<u32>,
    length: usize,
}

impl Bytes {
    /// A copy of `bytes`.
    pub fn new(bytes: &[u8]) -> Self {
        let words = bytes
            .chunks(4)
            .map(|chunk| {
                let mut word = [0; 4];
                word[..chunk.len()].copy_from_slice(chunk);
                u32::from_ne_bytes(word)
            })
            .collect();
        Self { words, length: bytes.len() }
    }

    /// The file at `path`.
    pub fn read(path: &Path) -> Result<Self> {
        Ok(Self::new(&fs::read(path).with_context(|| format!("cannot read the policy {}", path.display()))?))
    }

    /// The bytes.
    pub fn get(&self) -> &[u8] {
        &self.words.as_bytes()[..self.length]
    }

    /// The bytes, to be changed.
    pub fn get_mut(&mut self) -> &mut [u8] {
        &mut self.words.as_mut_bytes()[..self.length]
    }
}

/// The digest of a thousand actions from `seed`, after the self-test.
pub fn digest(bytes: &Bytes, seed: u64) -> Result<u64> {
    let policy = load(bytes)?;
    let shape = *policy.artefact().velocity().shape();
    let mut memory = vec![0.0; PolicyScratch::len(&shape, policy.plan())];
    let mut scratch = prepared(&policy, &mut memory)?;
    let (mut observation, mut action) = (vec![0.0; shape.obs], vec![0.0; shape.act]);
    Ok(action_digest(&policy, seed, &mut scratch, &mut observation, &mut action)?)
}

/// The return and the digest of the actions of the episode that the firmware's `pendulum` runs.
pub fn pendulum_episode(bytes: &Bytes) -> Result<(f64, u64)> {
    const STEPS: usize = 200;
    const SEED: u64 = 1;
    let policy = load(bytes)?;
    let mut memory = vec![0.0; PolicyScratch::len(policy.artefact().velocity().shape(), policy.plan())];
    let mut scratch = prepared(&policy, &mut memory)?;
    let mut plant = Pendulum::new();
    plant.reset(&mut Xoshiro256PlusPlus::seed_from_u64(SEED));
    let mut noise = Xoshiro128PlusPlus::seed_from_u64(SEED);
    let (mut total, mut digest) = (0.0, Digest::new());
    for _ in 0..STEPS {
        let mut action = [0.0];
        policy.act(&plant.observe().map(|value| value as f32), &mut noise, &mut scratch, &mut action)?;
        digest.update(&action);
        total += plant.step(f64::from(action[0]));
    }
    Ok((total, digest.finish()))
}

/// The digest of the actions that the firmware in C asks for, one by one (`capi/example/main.c`).
pub fn c_actions(bytes: &Bytes) -> Result<u64> {
    let policy = load(bytes)?;
    let mut memory = vec![0.0; PolicyScratch::len(policy.artefact().velocity().shape(), policy.plan())];
    let mut scratch = prepared(&policy, &mut memory)?;
    let mut noise = Xoshiro128PlusPlus::seed_from_u64(1);
    let mut digest = Digest::new();
    for step in 0..1000 {
        let observation = [0, 1, 2].map(|channel| ((step * 37 + channel * 11) % 201 - 100) as f32 / 64.0);
        let mut action = [0.0];
        policy.act(&observation, &mut noise, &mut scratch, &mut action)?;
        digest.update(&action);
    }
    Ok(digest.finish())
}

/// The bits of the actions that a policy decides on these observations with the noise of `seed`.
pub fn decisions(bytes: &Bytes, seed: u64, observations: &[Vec<f32>]) -> Result<Vec<Vec<u32>>> {
    let policy = load(bytes)?;
    let shape = policy.artefact().velocity().shape();
    let mut memory = vec![0.0; PolicyScratch::len(shape, policy.plan())];
    let mut scratch = prepared(&policy, &mut memory)?;
    let mut noise = Xoshiro128PlusPlus::seed_from_u64(seed);
    let mut decide = |observation: &Vec<f32>| {
        let mut action = vec![0.0; shape.act];
        policy.act(observation, &mut noise, &mut scratch, &mut action)?;
        Ok(action.iter().map(|a| a.to_bits()).collect())
    };
    observations.iter().map(&mut decide).collect()
}

/// The lines that the firmware's `control` logs for its cases.
pub fn control_cases(bytes: &Bytes) -> Result<Vec<String>> {
    let policy = load(bytes)?;
    let mut memory = vec![0.0; PolicyScratch::len(policy.artefact().velocity().shape(), policy.plan())];
    let mut policy = LentPolicy::new(policy, &mut memory)?;
    let mut lines = Vec::new();
    for case in &scenario::CASES {
        let o = scenario::play(case, &mut policy, |step| step())?;
        let status = u64::from_be_bytes(o.status.to_bytes());
        let bits = format!("{}: return {}, digest {:016x}, status {status:016x}", case.0, o.total, o.digest);
        lines.push(format!("{bits}, {} decisions, watchdog fed {} times, {}", o.decisions, o.fed, o.status.fault));
    }
    Ok(lines)
}

fn load(bytes: &Bytes) -> Result<Policy<'_>> {
    Ok(Policy::new(Artefact::new(bytes.get())?)?)
}

/// Memory with the policy's time table in it, after the self-test.
fn prepared<'m>(policy: &Policy<'_>, memory: &'m mut [f32]) -> Result<PolicyScratch<'m>> {
    let shape = policy.artefact().velocity().shape();
    let mut scratch = PolicyScratch::carve(shape, policy.plan(), memory).context("the memory is too short")?;
    policy.prepare(&mut scratch)?;
    policy.self_test(&mut scratch, &mut vec![0.0; shape.act])?;
    Ok(scratch)
}

/// An untrained policy of the given channels and width, for tests: 20 Hz, five Euler steps, random weights, as f32 or as
/// int8.
pub fn untrained(obs_names: &[&str], act_names: &[&str], hidden: usize, int8: bool) -> Result<Bytes> {
    let (obs, act) = (obs_names.len(), act_names.len());
    let frequencies = [1.0, 2.0, 4.0, 8.0].map(|f: f32| f * std::f32::consts::FRAC_PI_2);
    let shape = VelocityShape {
        obs,
        act,
        hidden,
        layers: 2,
        frequencies: frequencies.len(),
        activation: Activation::Relu,
        trunk: Trunk::Plain,
    };
    let plan = Plan { solver: Solver::Euler, steps: 5, t_start: 0.0, t_end: 1.0, latent_clip: 6.0 };
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(9);
    let width = (3.0 / hidden as f32).sqrt();
    let params: Vec<f32> =
        (0..shape.params()).map(|_| width * flowlet::math::symmetric_uniform(rng.next_u32())).collect();
    let mut words = vec![0; QuantisedNet::words_of(&shape)];
    let calibration = Calibration { input: 6.0, sums: &[8.0; 2], outputs: &[8.0; 2] };
    quantise(&shape, &params, &calibration, &mut words).map_err(|error| anyhow!("cannot quantise: {error:?}"))?;
    let manifest = Manifest {
        name: "untrained",
        period_us: 50_000,
        shape,
        frequencies: &frequencies,
        weights: if int8 { Weights::Int8(&words) } else { Weights::F32(&params) },
        plan,
        source: Source::Gaussian,
        schedule: Schedule::Linear,
        obs_names,
        act_names,
        obs_mean: &vec![0.0; obs],
        obs_scale: &vec![1.0; obs],
        obs_clip: 10.0,
        low: &vec![-2.0; act],
        high: &vec![2.0; act],
        squash: Squash::Tanh,
        critics: None,
        step_table: &[],
        test_observation: &vec![0.5; obs],
        test_noise: &vec![-0.25; act],
    };
    let mut bytes = Bytes::new(&vec![0; manifest.encoded_len()]);
    manifest.encode(bytes.get_mut(), &mut vec![0.0; manifest.scratch_len()])?;
    Ok(bytes)
}

/// Writes the CRC-32 over everything before it, so that only what the CRC protects is wrong.
pub fn reseal(bytes: &mut Bytes) {
    let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
    if let Some((body, place)) = bytes.get_mut().split_last_chunk_mut::<4>() {
        *place = crc.checksum(body).to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_any_length_are_kept_and_aligned() {
        for length in 0..9u8 {
            let bytes: Vec<u8> = (0..length).collect();
            let kept = Bytes::new(&bytes);
            assert_eq!(kept.get(), bytes);
            assert_eq!(kept.get().as_ptr().align_offset(4), 0);
        }
    }

    #[test]
    fn digests_depend_on_the_seed_and_on_nothing_else() {
        let policy = untrained(&["a", "b", "c"], &["u"], 16, false).unwrap();
        assert_eq!(digest(&policy, 1).unwrap(), digest(&policy.clone(), 1).unwrap());
        assert_ne!(digest(&policy, 1).unwrap(), digest(&policy, 2).unwrap());
    }

    #[test]
    fn resealing_an_artefact_changes_nothing_and_a_damaged_one_passes_its_checksum() {
        let mut policy = untrained(&["a", "b"], &["u"], 8, false).unwrap();
        let before = policy.get().to_vec();
        reseal(&mut policy);
        assert_eq!(policy.get(), before);
        // The last action byte before the checksum.
        let at = before.len() - 5;
        policy.get_mut()[at] ^= 1;
        assert!(digest(&policy, 0).unwrap_err().to_string().contains("checksum"));
        reseal(&mut policy);
        assert!(digest(&policy, 0).unwrap_err().to_string().contains("self-test"));
    }
}
