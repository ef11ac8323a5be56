//! The `.flw` artefact, versions 1 and 2: a checked view over bytes that copies nothing.
//!
//! `docs/format.md` is the normative description. [`Artefact::new`] checks everything once: magic, version, length,
//! CRC-32, every field, every number. What it accepts can be used without a further check: no accessor panics, fails
//! or reads outside the bytes. Any flipped, missing or extra byte is a named error. Loading costs one pass over the
//! bytes; nothing is allocated.

use crate::flow::{Plan, Schedule, Solver, Source};
use crate::math;
use crate::net::{
    Activation, Critic, CriticShape, NumberFormat, QuantisedNet, ShapeError, Trunk, Velocity, VelocityNet,
    VelocityShape,
};
use crate::policy::{ActionRange, Normalizer, Squash, StepTable};
use zerocopy::FromBytes;

/// The version of the format that this crate writes. It reads every version from 1 to this one.
pub const FORMAT_VERSION: u32 = 2;

/// The oldest version that it reads.
const OLDEST_VERSION: u32 = if cfg!(feature = "version-1") { 1 } else { 2 };

pub(super) const MAGIC: [u8; 4] = *b"FLOW";
/// Bytes of the fixed header.
pub(super) const HEADER: usize = 160;
/// Bytes of the artefact's name and of a channel name, padded with zeros.
pub(super) const NAME: usize = 32;
pub(super) const CHANNEL_NAME: usize = 16;

/// Words of an entry of the step table, and the most entries it may have.
pub(super) const STEP_ENTRY: usize = 3;
pub(super) const STEP_ENTRIES: usize = 8;

/// Largest activation code of version 1.
const ACTIVATIONS_V1: u32 = 3;

/// Largest magnitude of a weight or bias: 2^30.
const WEIGHT_MAX: f32 = (1u32 << 30) as f32;
/// Largest magnitude of a mean or limit: 2^100.
const VALUE_MAX: f32 = f32::from_bits((127 + 100) << 23);

/// Offsets of the header's words, in words of four bytes.
pub(super) mod word {
    pub const VERSION: usize = 1;
    pub const LENGTH: usize = 2;
    pub const OBS: usize = 3;
    pub const ACT: usize = 4;
    pub const HIDDEN: usize = 5;
    pub const LAYERS: usize = 6;
    pub const FREQUENCIES: usize = 7;
    pub const ACTIVATION: usize = 8;
    pub const TRUNK: usize = 9;
    pub const NUMBER: usize = 10;
    pub const SOURCE: usize = 11;
    pub const SCHEDULE: usize = 12;
    pub const SOLVER: usize = 13;
    pub const STEPS: usize = 14;
    pub const T_START: usize = 15;
    pub const T_END: usize = 16;
    pub const LATENT_CLIP: usize = 17;
    pub const SQUASH: usize = 18;
    pub const SEED_RULE: usize = 19;
    pub const PERIOD: usize = 20;
    pub const OBS_CLIP: usize = 21;
    pub const CRITICS: usize = 22;
    pub const CRITIC_HIDDEN: usize = 23;
    pub const CRITIC_LAYERS: usize = 24;
    pub const CRITIC_ACTIVATION: usize = 25;
    pub const PARTICLES: usize = 26;
    pub const TEMPERATURE: usize = 27;
    pub const SOURCE_PARAMETER: usize = 28;
    /// Two words.
    pub const SCHEDULE_PARAMETERS: usize = 29;
    /// Reserved in version 1.
    pub const STEP_TABLE: usize = 31;
}

/// Why bytes are not an artefact that this crate can run.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ArtefactError {
    /// The bytes do not begin at an address that is a multiple of four.
    Misaligned,
    /// Fewer bytes than a header.
    TooShort,
    /// The bytes do not begin with the magic number.
    Magic,
    /// A version that this crate does not know.
    Version {
        /// The version found.
        found: u32,
    },
    /// The number of bytes is not the one the header states or its shape gives.
    Length {
        /// Bytes the artefact should have.
        expected: usize,
        /// Bytes there are.
        found: usize,
    },
    /// The checksum does not match: the artefact is damaged.
    Crc,
    /// A header field has a value outside what the format allows.
    Field(&'static str),
    /// A reserved word is not zero.
    Reserved,
    /// A name is empty, not UTF-8, or not padded with zeros.
    Name,
    /// A number in the named section is not finite, too large, or below the subnormal rule's threshold.
    Number(&'static str),
    /// A lower action limit is not below its upper one.
    Limits,
    /// The step table is not strictly ascending in 1 to 1000, or holds a number that cannot be.
    StepTable,
}

/// A policy artefact whose every field has been checked.
#[derive(Debug, Clone, Copy)]
pub struct Artefact<'a> {
    version: u32,
    name: &'a str,
    period_us: u32,
    velocity: Velocity<'a>,
    plan: Plan,
    source: Source,
    schedule: Schedule,
    normalizer: Normalizer<'a>,
    range: ActionRange<'a>,
    obs_names: &'a [u8],
    act_names: &'a [u8],
    /// The critics' shape, and their parameters one after the other: views of them would make this one large.
    critic: Option<CriticShape>,
    critic_params: &'a [f32],
    particles: usize,
    temperature: f32,
    step_table: StepTable<'a>,
    test_observation: &'a [f32],
    test_noise: &'a [f32],
    test_action: &'a [f32],
    test_values: &'a [f32],
    bytes: &'a [u8],
}

/// Words of a velocity network.
pub(super) const fn velocity_words(shape: &VelocityShape, format: NumberFormat) -> usize {
    match format {
        NumberFormat::F32 => shape.params(),
        NumberFormat::Int8 => QuantisedNet::words_of(shape),
    }
}

/// Bytes of an artefact of this shape whose critics, their self-test and the step table take `further` words.
pub(super) const fn file_len(shape: &VelocityShape, format: NumberFormat, further: usize) -> usize {
    let observations = shape.obs.saturating_mul(CHANNEL_NAME + 3 * 4);
    let actions = shape.act.saturating_mul(CHANNEL_NAME + 4 * 4);
    let words = shape.frequencies.saturating_add(velocity_words(shape, format)).saturating_add(further);
    (HEADER + 4).saturating_add(observations).saturating_add(actions).saturating_add(words.saturating_mul(4))
}

/// The CRC-32 (ISO-HDLC, as in zip) that ends an artefact.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    static CRC: crc::Crc<u32, crc::NoTable> = crc::Crc::<u32, crc::NoTable>::new(&crc::CRC_32_ISO_HDLC);
    CRC.checksum(bytes)
}

/// Whether `x` may stand as a weight: zero, or of magnitude `[floor, ceiling]`.
fn lawful(x: f32, floor: f32, ceiling: f32) -> bool {
    x == 0.0 || (x.abs() >= floor && x.abs() <= ceiling)
}

fn all_lawful(values: &[f32], floor: f32, ceiling: f32) -> bool {
    values.iter().all(|x| lawful(*x, floor, ceiling))
}

/// Lengths of a network's parameter blocks, matrices and biases in turn.
pub(super) fn blocks(inputs: usize, hidden: usize, layers: usize, outputs: usize) -> impl Iterator<Item = usize> {
    let first = [inputs * hidden, hidden];
    let further = core::iter::repeat_n([hidden * hidden, hidden], layers.saturating_sub(1));
    core::iter::once(first).chain(further).chain(core::iter::once([hidden * outputs, outputs])).flatten()
}

/// Checks every weight and bias of a network.
fn check_params(
    params: &[f32],
    blocks: impl Iterator<Item = usize>,
    section: &'static str,
) -> Result<(), ArtefactError> {
    let mut rest = params;
    for (i, length) in blocks.enumerate() {
        let floor = if i % 2 == 0 { math::FLUSH } else { math::FLUSH_BIAS };
        if !all_lawful(crate::net::take(&mut rest, length), floor, WEIGHT_MAX) {
            return Err(ArtefactError::Number(section));
        }
    }
    Ok(())
}

/// A zero-padded UTF-8 name without control characters.
fn checked_name(field: &[u8]) -> Result<&str, ArtefactError> {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    let (text, padding) = field.split_at_checked(end).ok_or(ArtefactError::Name)?;
    let text = core::str::from_utf8(text).map_err(|_| ArtefactError::Name)?;
    let plain = !text.is_empty() && !text.chars().any(char::is_control) && padding.iter().all(|b| *b == 0);
    if plain { Ok(text) } else { Err(ArtefactError::Name) }
}

/// Reads header words and sections in order.
struct Reader<'a> {
    header: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn word(&self, index: usize) -> u32 {
        let bytes = self.header.get(4 * index..).and_then(|rest| rest.first_chunk::<4>());
        bytes.map_or(0, |b| u32::from_le_bytes(*b))
    }

    fn float(&self, index: usize) -> f32 {
        f32::from_bits(self.word(index))
    }

    /// A count in `low..=high`.
    fn count(&self, index: usize, low: u32, high: u32, field: &'static str) -> Result<usize, ArtefactError> {
        let value = self.word(index);
        if value < low || value > high {
            return Err(ArtefactError::Field(field));
        }
        Ok(value as usize)
    }

    fn bytes(&mut self, n: usize) -> Result<&'a [u8], ArtefactError> {
        let (head, tail) = self.rest.split_at_checked(n).ok_or(ArtefactError::TooShort)?;
        self.rest = tail;
        Ok(head)
    }

    fn words(&mut self, n: usize) -> Result<&'a [u32], ArtefactError> {
        let bytes = self.bytes(n.saturating_mul(4))?;
        <[u32]>::ref_from_bytes(bytes).map_err(|_| ArtefactError::Misaligned)
    }

    fn floats(&mut self, n: usize) -> Result<&'a [f32], ArtefactError> {
        let bytes = self.bytes(4 * n)?;
        <[f32]>::ref_from_bytes(bytes).map_err(|_| ArtefactError::Misaligned)
    }

    /// An activation that the file's version knows.
    fn activation(&self, index: usize, field: &'static str) -> Result<Activation, ArtefactError> {
        let code = self.word(index);
        let libm = (1..=ACTIVATIONS_V1).contains(&code);
        let known = (self.word(word::VERSION) > 1 || code <= ACTIVATIONS_V1) && (cfg!(feature = "version-1") || !libm);
        Activation::from_code(code).filter(|_| known).ok_or(ArtefactError::Field(field))
    }
}

impl<'a> Artefact<'a> {
    /// Checks `bytes`, which must begin at an address divisible by four, and returns a view over them.
    // Inlined it would keep its many temporaries on the caller's stack.
    #[inline(never)]
    pub fn new(bytes: &'a [u8]) -> Result<Self, ArtefactError> {
        use ArtefactError as E;
        const { assert!(cfg!(target_endian = "little"), "the artefact is read in place, as little-endian floats") };
        if bytes.as_ptr().align_offset(4) != 0 {
            return Err(E::Misaligned);
        }
        if !bytes.starts_with(&MAGIC) {
            return Err(if bytes.len() < HEADER { E::TooShort } else { E::Magic });
        }
        let header = bytes.get(..HEADER).ok_or(E::TooShort)?;
        let mut r = Reader { header, rest: &[] };
        let version = r.word(word::VERSION);
        if !(OLDEST_VERSION..=FORMAT_VERSION).contains(&version) {
            return Err(E::Version { found: version });
        }
        let stated = r.word(word::LENGTH) as usize;
        if stated != bytes.len() {
            return Err(E::Length { expected: stated, found: bytes.len() });
        }
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or(E::TooShort)?;
        if crc32(body) != u32::from_le_bytes(*crc) {
            return Err(E::Crc);
        }
        r.rest = body.get(HEADER..).ok_or(E::TooShort)?;

        let format = NumberFormat::from_code(r.word(word::NUMBER)).filter(|f| version > 1 || *f == NumberFormat::F32);
        let format = format.ok_or(E::Field("number format"))?;
        if !cfg!(feature = "int8") && format == NumberFormat::Int8 {
            return Err(E::Field("number format, which this program was built without"));
        }
        let squash =
            Squash::from_code(r.word(word::SQUASH)).filter(|squash| version > 1 || *squash == Squash::TanhLibm);
        let squash = squash.filter(|squash| cfg!(feature = "version-1") || *squash != Squash::TanhLibm);
        let squash = squash.ok_or(E::Field("squash"))?;
        r.count(word::SEED_RULE, 0, 0, "seed rule")?;
        if version == 1 && r.word(word::STEP_TABLE) != 0 {
            return Err(E::Reserved);
        }
        let step_entries = r.count(word::STEP_TABLE, 0, STEP_ENTRIES as u32, "step table")?;
        let shape = VelocityShape {
            obs: r.count(word::OBS, 1, 1024, "observations")?,
            act: r.count(word::ACT, 1, 256, "actions")?,
            hidden: r.count(word::HIDDEN, 1, 1024, "hidden width")?,
            layers: r.count(word::LAYERS, 1, 8, "hidden layers")?,
            frequencies: r.count(word::FREQUENCIES, 0, 256, "time frequencies")?,
            activation: r.activation(word::ACTIVATION, "activation")?,
            trunk: Trunk::from_code(r.word(word::TRUNK)).ok_or(E::Field("trunk"))?,
        };
        let plan = Plan {
            solver: Solver::from_code(r.word(word::SOLVER)).ok_or(E::Field("solver"))?,
            steps: r.count(word::STEPS, 1, Plan::MAX_STEPS as u32, "steps")?,
            t_start: r.float(word::T_START),
            t_end: r.float(word::T_END),
            latent_clip: r.float(word::LATENT_CLIP),
        };
        plan.check().map_err(|_| E::Field("integration interval or latent clip"))?;
        let source = Source::from_code(r.word(word::SOURCE), r.float(word::SOURCE_PARAMETER));
        let source = source.map_err(|_| E::Field("source or its parameter"))?;
        if !cfg!(feature = "sources") && source != Source::Gaussian {
            return Err(E::Field("source, which this program was built without"));
        }
        let parameters = [word::SCHEDULE_PARAMETERS, word::SCHEDULE_PARAMETERS + 1].map(|i| r.float(i));
        let schedule = Schedule::from_code(r.word(word::SCHEDULE), parameters);
        let schedule = schedule.map_err(|_| E::Field("schedule or its parameters"))?;
        let period_us = r.count(word::PERIOD, 1, 3_600_000_000, "control period")? as u32;
        let obs_clip = r.float(word::OBS_CLIP);
        if !(1.0 / 1024.0..=1024.0).contains(&obs_clip) {
            return Err(E::Field("observation clip"));
        }
        let (critics, particles, temperature) =
            (r.count(word::CRITICS, 0, 2, "critics")?, r.word(word::PARTICLES), r.float(word::TEMPERATURE));
        let critic_shape = if critics == 0 {
            let unused = [word::CRITIC_HIDDEN, word::CRITIC_LAYERS, word::CRITIC_ACTIVATION, word::PARTICLES];
            if unused.into_iter().chain([word::TEMPERATURE]).any(|i| r.word(i) != 0) {
                return Err(E::Field("critic fields without a critic"));
            }
            None
        } else {
            if particles == 0 || particles > 1024 {
                return Err(E::Field("particles"));
            }
            if !(1e-9..=1e9).contains(&temperature) {
                return Err(E::Field("temperature"));
            }
            Some(CriticShape {
                obs: shape.obs,
                act: shape.act,
                hidden: r.count(word::CRITIC_HIDDEN, 1, 1024, "critic width")?,
                layers: r.count(word::CRITIC_LAYERS, 1, 8, "critic layers")?,
                activation: r.activation(word::CRITIC_ACTIVATION, "critic activation")?,
            })
        };
        let critic_params = critic_shape.map_or(0, |c| c.params());
        let expected = file_len(&shape, format, critics * (critic_params + 1) + STEP_ENTRY * step_entries);
        if expected != bytes.len() {
            return Err(E::Length { expected, found: bytes.len() });
        }

        let name = checked_name(header.get(HEADER - NAME..).unwrap_or(&[]))?;
        let (obs_names, act_names) = (r.bytes(CHANNEL_NAME * shape.obs)?, r.bytes(CHANNEL_NAME * shape.act)?);
        for field in obs_names.chunks_exact(CHANNEL_NAME).chain(act_names.chunks_exact(CHANNEL_NAME)) {
            checked_name(field)?;
        }
        let (mean, scale) = (r.floats(shape.obs)?, r.floats(shape.obs)?);
        if !all_lawful(mean, math::FLUSH_BIAS, VALUE_MAX) {
            return Err(E::Number("normaliser mean"));
        }
        if !scale.iter().all(|s| *s >= math::FLUSH && *s <= 1.0 / math::FLUSH) {
            return Err(E::Number("normaliser scale"));
        }
        let (low, high) = (r.floats(shape.act)?, r.floats(shape.act)?);
        if !all_lawful(low, math::FLUSH, VALUE_MAX) || !all_lawful(high, math::FLUSH, VALUE_MAX) {
            return Err(E::Number("action limits"));
        }
        if low.iter().zip(high).any(|(low, high)| low >= high) {
            return Err(E::Limits);
        }
        let frequencies = r.floats(shape.frequencies)?;
        if !all_lawful(frequencies, math::FLUSH, WEIGHT_MAX) {
            return Err(E::Number("time frequencies"));
        }
        let velocity = match format {
            NumberFormat::F32 => {
                let params = r.floats(shape.params())?;
                let inputs = shape.obs + shape.act + 2 * shape.frequencies;
                check_params(params, blocks(inputs, shape.hidden, shape.layers, shape.act), "velocity weights")?;
                let net = VelocityNet::new(shape, frequencies, params);
                #[cfg(feature = "version-1")]
                let net = net.map(|net| if version == 1 { net.with_libm_features() } else { net });
                net.map(Velocity::F32)
            }
            NumberFormat::Int8 => {
                let words = r.words(velocity_words(&shape, format))?;
                QuantisedNet::new(shape, frequencies, words).map(Velocity::Int8)
            }
        };
        let velocity = velocity.map_err(|error| match error {
            ShapeError::Value(what) => E::Number(what),
            ShapeError::Narrow => E::Field("hidden width"),
            _ => E::Field("shape"),
        })?;
        let all_critics = r.floats(critics * critic_params)?;
        if let Some(c) = critic_shape {
            for params in all_critics.chunks_exact(critic_params) {
                check_params(params, blocks(c.obs + c.act, c.hidden, c.layers, 1), "critic weights")?;
            }
        }
        let (step_table, _) = r.words(STEP_ENTRY * step_entries)?.as_chunks();
        let step_table = StepTable::checked(step_table).ok_or(E::StepTable)?;
        let (test_observation, test_noise) = (r.floats(shape.obs)?, r.floats(shape.act)?);
        let (test_action, test_values) = (r.floats(shape.act)?, r.floats(critics)?);
        let test = [test_observation, test_noise, test_action, test_values];
        if !test.into_iter().flatten().all(|x| x.is_finite()) {
            return Err(E::Number("self-test vector"));
        }
        Ok(Self {
            version,
            name,
            period_us,
            velocity,
            plan,
            source,
            schedule,
            normalizer: Normalizer { mean, scale, clip: obs_clip },
            range: ActionRange { low, high, squash },
            obs_names,
            act_names,
            critic: critic_shape,
            critic_params: all_critics,
            particles: particles as usize,
            temperature,
            step_table,
            test_observation,
            test_noise,
            test_action,
            test_values,
            bytes,
        })
    }

    /// The version of the format it is written in.
    pub fn format_version(&self) -> u32 {
        self.version
    }

    /// The artefact's name: the environment or robot it was trained for.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// Control period in microseconds: the time from one decision to the next.
    pub fn period_us(&self) -> u32 {
        self.period_us
    }

    /// The velocity network.
    pub fn velocity(&self) -> &Velocity<'a> {
        &self.velocity
    }

    /// The plan of integration the policy was exported with.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The distribution of the noise.
    pub fn source(&self) -> Source {
        self.source
    }

    /// The schedule the velocity was trained on.
    pub fn schedule(&self) -> Schedule {
        self.schedule
    }

    /// The observation normaliser.
    pub fn normalizer(&self) -> &Normalizer<'a> {
        &self.normalizer
    }

    /// The range of the actions.
    pub fn range(&self) -> &ActionRange<'a> {
        &self.range
    }

    /// Names of the observation channels.
    pub fn obs_names(&self) -> Names<'a> {
        Names(self.obs_names)
    }

    /// Names of the action channels.
    pub fn act_names(&self) -> Names<'a> {
        Names(self.act_names)
    }

    /// The critics that travel along, none to two.
    pub fn critics(&self) -> impl Iterator<Item = Critic<'a>> + Clone {
        self.critic.into_iter().flat_map(|shape| {
            let each = self.critic_params.chunks_exact(shape.params().max(1));
            // The number of parameters was checked with the file's length: every view is made.
            each.filter_map(move |params| Critic::new(shape, params).ok())
        })
    }

    /// Particles among which the trainer's behaviour chose; zero without a critic.
    pub fn particles(&self) -> usize {
        self.particles
    }

    /// Temperature `lambda` of the target at the end of training; zero without a critic.
    pub fn temperature(&self) -> f32 {
        self.temperature
    }

    /// The measured return of plans with other numbers of steps; empty where nobody measured it.
    pub fn step_table(&self) -> StepTable<'a> {
        self.step_table
    }

    /// The self-test: observation, noise, the action they must give, and each critic's value there.
    pub fn self_test(&self) -> (&'a [f32], &'a [f32], &'a [f32], &'a [f32]) {
        (self.test_observation, self.test_noise, self.test_action, self.test_values)
    }

    /// The bytes the view was made from.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

/// Channel names of an artefact, in order.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a>(&'a [u8]);

impl<'a> Iterator for Names<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let (field, rest) = self.0.split_at_checked(CHANNEL_NAME)?;
        self.0 = rest;
        // Checked when the artefact was accepted; the fallback cannot be reached.
        Some(checked_name(field).unwrap_or(""))
    }
}

impl core::fmt::Display for ArtefactError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Misaligned => f.write_str("the artefact must begin at an address divisible by 4"),
            Self::TooShort => f.write_str("the artefact is truncated"),
            Self::Magic => f.write_str("this is not a flowlet artefact: the magic number is missing"),
            Self::Version { found } => {
                write!(
                    f,
                    "the artefact has format version {found}; this program reads versions 1 to {FORMAT_VERSION}: update it"
                )
            }
            Self::Length { expected, found } => {
                write!(f, "the artefact should have {expected} bytes and has {found}: it is truncated or damaged")
            }
            Self::Crc => f.write_str("the artefact is damaged: its checksum does not match"),
            Self::Field(field) => {
                write!(f, "the artefact's field '{field}' has a value that the format does not allow")
            }
            Self::Reserved => f.write_str("a reserved word of the artefact is not zero"),
            Self::Name => f.write_str("a name in the artefact is empty, not UTF-8, or not padded with zeros"),
            Self::Number(section) => {
                write!(f, "the artefact's {section} hold a number that is not finite, too large or too small")
            }
            Self::StepTable => f.write_str(
                "the artefact's step table does not ascend in 1 to 1000 steps, or its returns are no numbers",
            ),
            Self::Limits => f.write_str("a lower action limit of the artefact is not below its upper one"),
        }
    }
}

impl core::error::Error for ArtefactError {}
