//! Writing an artefact: a [`Manifest`] of everything it holds, encoded into bytes the caller provides.
//!
//! The subnormal rule is applied to every weight on the way, the self-test vector is computed by this crate's own
//! decision, and the result is read back by [`Artefact::new`] before it is returned: what was encoded can be loaded.
//! No panics, no allocation; after an error the bytes hold nothing of use.

use super::artefact::{
    self, Artefact, ArtefactError, CHANNEL_NAME, FORMAT_VERSION, HEADER, MAGIC, NAME, STEP_ENTRY, word,
};
use super::{BestOfScratch, Policy, PolicyError, PolicyScratch, Squash, StepEntry};
use crate::flow::{Plan, Schedule, Source};
use crate::math;
use crate::net::{CriticShape, NumberFormat, VelocityShape};

/// Critics that travel with a policy.
#[derive(Debug, Clone, Copy)]
pub struct CriticManifest<'a> {
    /// Shape of each critic; its numbers of observations and actions are the policy's.
    pub shape: CriticShape,
    /// Number of critics, 1 or 2.
    pub count: usize,
    /// Their parameters, one critic after another.
    pub params: &'a [f32],
    /// Particles among which the trainer's behaviour chose.
    pub particles: usize,
    /// Temperature at the end of training.
    pub temperature: f32,
}

/// The numbers of a velocity network, by its number format.
#[derive(Debug, Clone, Copy)]
pub enum Weights<'a> {
    /// Parameters in the order of [`crate::net::VelocityNet`].
    F32(&'a [f32]),
    /// Words as [`crate::net::quantise`] writes them.
    Int8(&'a [u32]),
}

impl Weights<'_> {
    fn format(&self) -> NumberFormat {
        match self {
            Self::F32(_) => NumberFormat::F32,
            Self::Int8(_) => NumberFormat::Int8,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::F32(params) => params.len(),
            Self::Int8(words) => words.len(),
        }
    }
}

/// Everything an artefact holds.
#[derive(Debug, Clone, Copy)]
pub struct Manifest<'a> {
    /// The environment or robot the policy is for; up to 32 bytes.
    pub name: &'a str,
    /// Control period in microseconds.
    pub period_us: u32,
    /// Shape of the velocity network.
    pub shape: VelocityShape,
    /// Time frequencies, radians per unit of flow time.
    pub frequencies: &'a [f32],
    /// The velocity network's numbers.
    pub weights: Weights<'a>,
    /// Plan of integration.
    pub plan: Plan,
    /// Source of the noise.
    pub source: Source,
    /// Schedule the velocity was trained on.
    pub schedule: Schedule,
    /// Names of the observation channels, up to 16 bytes each.
    pub obs_names: &'a [&'a str],
    /// Names of the action channels, up to 16 bytes each.
    pub act_names: &'a [&'a str],
    /// Means of the observations.
    pub obs_mean: &'a [f32],
    /// Scales of the observations.
    pub obs_scale: &'a [f32],
    /// Clip of the normalised observations.
    pub obs_clip: f32,
    /// Lowest actions.
    pub low: &'a [f32],
    /// Highest actions.
    pub high: &'a [f32],
    /// From latents to actions: [`Squash::Tanh`] but for the heirs of version-1 artefacts.
    pub squash: Squash,
    /// Critics, for selection and fine-tuning.
    pub critics: Option<CriticManifest<'a>>,
    /// Measured returns by number of steps, ascending, at most eight; empty where nobody measured them.
    pub step_table: &'a [StepEntry],
    /// Observation of the self-test.
    pub test_observation: &'a [f32],
    /// Noise of the self-test.
    pub test_noise: &'a [f32],
}

/// Why a manifest cannot be encoded.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum EncodeError {
    /// A list of the manifest does not have the length its shape asks for.
    Length(&'static str),
    /// A name is longer than its field.
    Name,
    /// The output bytes do not have the length of [`Manifest::encoded_len`].
    Output,
    /// The format does not allow what the manifest holds.
    Refused(ArtefactError),
    /// The policy cannot decide, so there is no self-test vector.
    Policy(PolicyError),
}

/// Fills bytes from front to back.
struct Writer<'o> {
    rest: &'o mut [u8],
}

impl Writer<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        let (head, tail) =
            core::mem::take(&mut self.rest).split_at_mut_checked(bytes.len()).ok_or(EncodeError::Output)?;
        head.copy_from_slice(bytes);
        self.rest = tail;
        Ok(())
    }

    fn name(&mut self, name: &str, width: usize) -> Result<(), EncodeError> {
        let padding = width.checked_sub(name.len()).ok_or(EncodeError::Name)?;
        self.bytes(name.as_bytes())?;
        (0..padding).try_for_each(|_| self.bytes(&[0]))
    }

    fn floats(&mut self, values: impl IntoIterator<Item = f32>) -> Result<(), EncodeError> {
        values.into_iter().try_for_each(|x| self.bytes(&x.to_le_bytes()))
    }

    /// A network's parameters under the subnormal rule. NaN is kept, for the reader to refuse.
    fn params(&mut self, params: &[f32], blocks: impl Iterator<Item = usize>) -> Result<(), EncodeError> {
        let mut rest = params;
        for (i, length) in blocks.enumerate() {
            let rule = if i % 2 == 0 { math::flush } else { math::flush_bias };
            let block = crate::net::take(&mut rest, length);
            self.floats(block.iter().map(|x| if x.is_nan() { *x } else { rule(*x) }))?;
        }
        Ok(())
    }
}

impl Manifest<'_> {
    /// Bytes the artefact will have; `usize::MAX` where they cannot be counted.
    pub fn encoded_len(&self) -> usize {
        let critics = self.critics.map_or(0, |c| c.count.saturating_mul(c.shape.params().saturating_add(1)));
        artefact::file_len(
            &self.shape,
            self.weights.format(),
            critics.saturating_add(self.step_table.len().saturating_mul(STEP_ENTRY)),
        )
    }

    /// Floats of scratch that [`encode`](Self::encode) needs.
    pub fn scratch_len(&self) -> usize {
        let critics = self.critics.map_or(0, |c| BestOfScratch::len(&self.shape, &c.shape, c.count));
        PolicyScratch::len(&self.shape, &self.plan).saturating_add(critics)
    }

    /// Writes the artefact into `out`, whose length is [`encoded_len`](Self::encoded_len) and whose address is
    /// divisible by four.
    ///
    /// `memory` is scratch for one decision, of at least [`scratch_len`](Self::scratch_len) floats.
    pub fn encode<'o>(&self, out: &'o mut [u8], memory: &mut [f32]) -> Result<Artefact<'o>, EncodeError> {
        self.check_lengths()?;
        if out.len() != self.encoded_len() {
            return Err(EncodeError::Output);
        }
        let short = EncodeError::Length("scratch");
        let (memory, rest) = memory.split_at_mut_checked(PolicyScratch::len(&self.shape, &self.plan)).ok_or(short)?;
        let mut scratch = PolicyScratch::carve(&self.shape, &self.plan, memory).ok_or(short)?;
        self.write(out)?;
        seal(out)?;
        // The self-test's results stand before the CRC; compute them from the bytes that were written.
        let act = self.shape.act;
        let critics = self.critics.map_or(0, |c| c.count);
        let results = out.len() - 4 * (1 + critics + act);
        let mut at = results;
        let policy = Policy::new(Artefact::new(out).map_err(EncodeError::Refused)?).map_err(EncodeError::Policy)?;
        policy.prepare(&mut scratch).map_err(EncodeError::Policy)?;
        let mut channel = [0.0; 256];
        let action = channel.get_mut(..act).ok_or(EncodeError::Length("actions"))?;
        policy
            .act_from_noise(self.test_observation, self.test_noise, &mut scratch, action)
            .map_err(EncodeError::Policy)?;
        let mut values = [0.0; 2];
        if let Some(c) = &self.critics {
            let mut selection = BestOfScratch::carve(&self.shape, &c.shape, c.count, rest).ok_or(short)?;
            values = policy.critic_values(&scratch, &mut selection).map_err(EncodeError::Policy)?;
        }
        for value in action.iter().chain(values.iter().take(critics)) {
            let place = out.get_mut(at..at + 4).ok_or(EncodeError::Output)?;
            place.copy_from_slice(&value.to_le_bytes());
            at += 4;
        }
        seal(out)?;
        Artefact::new(out).map_err(EncodeError::Refused)
    }

    fn check_lengths(&self) -> Result<(), EncodeError> {
        let (obs, act) = (self.shape.obs, self.shape.act);
        if self.shape.is_empty() {
            return Err(EncodeError::Length("layers, which must not be empty,"));
        }
        for (what, expected, found) in [
            ("frequencies", self.shape.frequencies, self.frequencies.len()),
            ("velocity parameters", artefact::velocity_words(&self.shape, self.weights.format()), self.weights.len()),
            ("observation names", obs, self.obs_names.len()),
            ("action names", act, self.act_names.len()),
            ("observation means", obs, self.obs_mean.len()),
            ("observation scales", obs, self.obs_scale.len()),
            ("lowest actions", act, self.low.len()),
            ("highest actions", act, self.high.len()),
            ("self-test observation", obs, self.test_observation.len()),
            ("self-test noise", act, self.test_noise.len()),
        ] {
            if expected != found {
                return Err(EncodeError::Length(what));
            }
        }
        match self.critics {
            Some(c) if c.shape.obs != obs || c.shape.act != act => Err(EncodeError::Length("critic shape")),
            Some(c) if c.params.len() != c.count.saturating_mul(c.shape.params()) || c.params.is_empty() => {
                Err(EncodeError::Length("critic parameters"))
            }
            _ => Ok(()),
        }
    }

    fn write(&self, out: &mut [u8]) -> Result<(), EncodeError> {
        let s = &self.shape;
        let length = out.len() as u32;
        let critic = self.critics.as_ref();
        let [low, high] = self.schedule.parameters();
        let mut words = [0u32; (HEADER - NAME) / 4];
        for (index, value) in [
            (0, u32::from_le_bytes(MAGIC)),
            (word::VERSION, FORMAT_VERSION),
            (word::LENGTH, length),
            (word::OBS, s.obs as u32),
            (word::ACT, s.act as u32),
            (word::HIDDEN, s.hidden as u32),
            (word::LAYERS, s.layers as u32),
            (word::FREQUENCIES, s.frequencies as u32),
            (word::ACTIVATION, s.activation as u32),
            (word::TRUNK, s.trunk as u32),
            (word::NUMBER, self.weights.format() as u32),
            (word::SOURCE, self.source.code()),
            (word::SCHEDULE, self.schedule.code()),
            (word::SOLVER, self.plan.solver as u32),
            (word::STEPS, self.plan.steps as u32),
            (word::T_START, self.plan.t_start.to_bits()),
            (word::T_END, self.plan.t_end.to_bits()),
            (word::LATENT_CLIP, self.plan.latent_clip.to_bits()),
            (word::SQUASH, self.squash as u32),
            (word::PERIOD, self.period_us),
            (word::OBS_CLIP, self.obs_clip.to_bits()),
            (word::CRITICS, critic.map_or(0, |c| c.count as u32)),
            (word::CRITIC_HIDDEN, critic.map_or(0, |c| c.shape.hidden as u32)),
            (word::CRITIC_LAYERS, critic.map_or(0, |c| c.shape.layers as u32)),
            (word::CRITIC_ACTIVATION, critic.map_or(0, |c| c.shape.activation as u32)),
            (word::PARTICLES, critic.map_or(0, |c| c.particles as u32)),
            (word::TEMPERATURE, critic.map_or(0, |c| c.temperature.to_bits())),
            (word::SOURCE_PARAMETER, self.source.parameter().to_bits()),
            (word::SCHEDULE_PARAMETERS, low.to_bits()),
            (word::SCHEDULE_PARAMETERS + 1, high.to_bits()),
            (word::STEP_TABLE, self.step_table.len() as u32),
        ] {
            if let Some(word) = words.get_mut(index) {
                *word = value;
            }
        }
        let mut w = Writer { rest: out };
        words.iter().try_for_each(|word| w.bytes(&word.to_le_bytes()))?;
        w.name(self.name, NAME)?;
        self.obs_names.iter().chain(self.act_names).try_for_each(|name| w.name(name, CHANNEL_NAME))?;
        w.floats(self.obs_mean.iter().map(|x| if x.is_nan() { *x } else { math::flush_bias(*x) }))?;
        w.floats(self.obs_scale.iter().copied())?;
        w.floats(self.low.iter().chain(self.high).chain(self.frequencies).copied())?;
        match self.weights {
            Weights::F32(params) => {
                let inputs = s.obs + s.act + 2 * s.frequencies;
                w.params(params, artefact::blocks(inputs, s.hidden, s.layers, s.act))?;
            }
            Weights::Int8(words) => words.iter().try_for_each(|word| w.bytes(&word.to_le_bytes()))?,
        }
        if let Some(c) = critic {
            for params in c.params.chunks_exact(c.shape.params()) {
                w.params(params, artefact::blocks(s.obs + s.act, c.shape.hidden, c.shape.layers, 1))?;
            }
        }
        self.step_table.iter().flat_map(|e| e.words()).try_for_each(|word| w.bytes(&word.to_le_bytes()))?;
        w.floats(self.test_observation.iter().chain(self.test_noise).copied())?;
        w.rest.fill(0);
        Ok(())
    }
}

/// Writes the CRC over everything before it.
fn seal(bytes: &mut [u8]) -> Result<(), EncodeError> {
    let (body, place) = bytes.split_last_chunk_mut::<4>().ok_or(EncodeError::Output)?;
    *place = artefact::crc32(body).to_le_bytes();
    Ok(())
}

impl core::fmt::Display for EncodeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Length(what) => write!(f, "the manifest's {what} do not have the length its shape asks for"),
            Self::Name => f.write_str("a name is too long: 32 bytes for the artefact's, 16 for a channel's"),
            Self::Output => f.write_str("the output does not have the length of the encoded artefact"),
            Self::Refused(error) => error.fmt(f),
            Self::Policy(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for EncodeError {}
