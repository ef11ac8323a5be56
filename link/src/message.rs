//! What frames carry: the kinds of message and their payloads, as `docs/protocol.md` lays them down.
//!
//! Every number is little-endian and every `f32` is carried by its bits. A payload of the wrong length is `None`. No
//! panics, no allocation.

use crate::frame::Counters;
use core::fmt;
use flowlet::control::Status;

/// The kinds of message, the second byte of a frame.
pub mod kind {
    /// Begins a conversation; answered by [`Info`](super::Info).
    pub const HELLO: u8 = 1;
    /// Begins an episode; [`Reset`](super::Reset).
    pub const RESET: u8 = 2;
    /// Asks for a decision: the observation's `f32`s. Answered by [`Action`](super::Action).
    pub const OBSERVATION: u8 = 3;
    /// Begins an upload; [`Begin`](super::Begin).
    pub const BEGIN: u8 = 4;
    /// A piece of an upload: offset `u32`, bytes.
    pub const CHUNK: u8 = 5;
    /// Ends an upload: the artefact is checked, tested and used. Answered by [`Info`](super::Info).
    pub const COMMIT: u8 = 6;
    /// Gives an upload up.
    pub const ABORT: u8 = 7;
    /// Asks for bytes of the artefact that decides: offset `u32`, length `u16`. Answered by offset `u32`, bytes.
    pub const READ: u8 = 8;
    /// Asks for the board's [`Counters`](crate::frame::Counters), as eight `u32`.
    pub const COUNT: u8 = 9;
    /// Begins to learn; [`Learn`](crate::learning::Learn). Answered by the bytes of RAM and the parameters of the network.
    pub const LEARN: u8 = 10;
    /// What the last decision led to, and the observation for the next; [`Sample`](crate::learning::Sample). Answered by
    /// [`Action`](super::Action).
    pub const SAMPLE: u8 = 11;
    /// Takes the parameters down of those who play; answered by their length in bytes and CRC-32.
    pub const SNAPSHOT: u8 = 12;
    /// Asks for bytes of what was taken down: as [`READ`].
    pub const PARAMETERS: u8 = 13;
    /// Added to a request's kind it is the kind of its answer; from here on no kind is a request.
    pub const ANSWER: u8 = 0x80;
    /// Sent by the board unasked, with a sequence of its own: channel `u8`, then fields of four bytes, `f32`s but for those of
    /// [`Learning`](crate::learning::Learning).
    pub const TELEMETRY: u8 = 0xc0;
    /// The answer to a request that cannot be carried out: a [`Refusal`](super::Refusal), then a sentence.
    pub const ERROR: u8 = 0xfe;
}

/// A channel of [`kind::TELEMETRY`]: decisions of the episode so far, most and mean ticks of a decision.
pub const TELEMETRY_DECISIONS: u8 = 0;

/// A channel of [`kind::TELEMETRY`]: how learning goes, [`Learning`](crate::learning::Learning).
pub const TELEMETRY_LEARNING: u8 = 1;

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[repr(u8)]
pub enum Refusal {
    /// The frame is of another version of the protocol; the answer's header has the board's.
    Version = 1,
    /// The kind is not known.
    Kind = 2,
    /// The payload has the wrong length.
    Length = 3,
    /// An observation came before a reset.
    NoEpisode = 4,
    /// A piece of an upload came out of order, or without a beginning.
    Order = 5,
    /// The artefact does not fit the board's memory or frames.
    Room = 6,
    /// The artefact is refused: damaged, of another format, or it fails its self-test.
    Artefact = 7,
    /// The policy cannot be learned from, or with these constants.
    Learning = 8,
    /// There is no learner, or nothing was taken down.
    NotLearning = 9,
    /// An episode is under way.
    NotAtRest = 10,
}

impl Refusal {
    /// The refusal with this code.
    pub fn from_code(code: u8) -> Option<Self> {
        use Refusal::*;
        [Version, Kind, Length, NoEpisode, Order, Room, Artefact, Learning, NotLearning, NotAtRest]
            .into_iter()
            .find(|r| *r as u8 == code)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Version => "the board speaks another version of the protocol",
            Self::Kind => "the board does not know this request",
            Self::Length => "the request has the wrong length",
            Self::NoEpisode => "no episode was begun",
            Self::Order => "a piece of the upload is out of order",
            Self::Room => "the artefact does not fit the board",
            Self::Artefact => "the artefact is refused",
            Self::Learning => "the policy cannot be learned from so",
            Self::NotLearning => "nothing is learned on the board",
            Self::NotAtRest => "an episode is under way on the board",
        })
    }
}

impl core::error::Error for Refusal {}

/// Reads fields from front to back.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    // Never inlined: a payload has up to 45 fields, and building for size the compiler takes two minutes to relate the bounds
    // of so many.
    #[inline(never)]
    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    pub(crate) fn f32(&mut self) -> Option<f32> {
        self.take().map(f32::from_le_bytes)
    }

    pub(crate) fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

/// Writes fields from front to back; what does not fit is remembered as a failure.
pub(crate) struct Builder<'o> {
    out: &'o mut [u8],
    length: usize,
    failed: bool,
}

impl<'o> Builder<'o> {
    pub(crate) fn new(out: &'o mut [u8]) -> Self {
        Self { out, length: 0, failed: false }
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        match self.out.get_mut(self.length..).and_then(|rest| rest.get_mut(..bytes.len())) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.length += bytes.len();
            }
            None => self.failed = true,
        }
        self
    }

    pub(crate) fn floats(self, values: &[f32]) -> Self {
        values.iter().fold(self, |builder, x| builder.bytes(&x.to_le_bytes()))
    }

    /// The length written, unless something did not fit.
    pub(crate) fn finish(self) -> Option<usize> {
        (!self.failed).then_some(self.length)
    }
}

/// The floats of a payload, `None` when its length is no multiple of four.
pub fn floats(payload: &[u8]) -> Option<impl ExactSizeIterator<Item = f32> + '_> {
    let (chunks, rest) = payload.as_chunks::<4>();
    rest.is_empty().then(|| chunks.iter().map(|bytes| f32::from_le_bytes(*bytes)))
}

/// A name, padded with zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<const N: usize>(pub [u8; N]);

impl<const N: usize> Name<N> {
    /// As much of the front of `text` as fits.
    pub fn new(text: &str) -> Self {
        let mut bytes = [0; N];
        let end = text.floor_char_boundary_of(N);
        for (place, byte) in bytes.iter_mut().zip(text.bytes().take(end)) {
            *place = byte;
        }
        Self(bytes)
    }

    /// The text; empty when the bytes are no UTF-8.
    pub fn text(&self) -> &str {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(N);
        self.0.get(..end).and_then(|bytes| core::str::from_utf8(bytes).ok()).unwrap_or("")
    }
}

/// `str::floor_char_boundary` is younger than the compiler this crate promises to build with.
trait FloorCharBoundary {
    fn floor_char_boundary_of(&self, at: usize) -> usize;
}

impl FloorCharBoundary for str {
    fn floor_char_boundary_of(&self, at: usize) -> usize {
        (0..=at.min(self.len())).rev().find(|i| self.is_char_boundary(*i)).unwrap_or(0)
    }
}

/// Where the artefact that decides lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Place {
    /// The one that the firmware was built with.
    Flash = 0,
    /// An uploaded one.
    Ram = 1,
}

/// What the board is and which policy decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Longest payload, in bytes, that the board takes and sends.
    pub payload: u16,
    /// Number format of the artefact's weights, as its header has it.
    pub number_format: u8,
    /// Where the artefact lies.
    pub place: Place,
    /// Observation channels.
    pub obs: u16,
    /// Action channels.
    pub act: u16,
    /// Control period in microseconds.
    pub period_us: u32,
    /// Bytes of the artefact.
    pub length: u32,
    /// CRC-32 of all of them.
    pub crc: u32,
    /// Bytes that an upload may have now.
    pub room: u32,
    /// Ticks a second of the counter behind [`Action::ticks`]; zero where it counts instructions.
    pub ticks_per_second: u32,
    /// Name of the artefact.
    pub name: Name<32>,
    /// Name of the board.
    pub board: Name<16>,
}

impl Info {
    /// Bytes of the payload.
    pub const LENGTH: usize = 80;

    /// Writes the payload to the front of `out`; its length.
    pub fn write(&self, out: &mut [u8]) -> Option<usize> {
        Builder::new(out)
            .bytes(&self.payload.to_le_bytes())
            .bytes(&[self.number_format, self.place as u8])
            .bytes(&self.obs.to_le_bytes())
            .bytes(&self.act.to_le_bytes())
            .bytes(&self.period_us.to_le_bytes())
            .bytes(&self.length.to_le_bytes())
            .bytes(&self.crc.to_le_bytes())
            .bytes(&self.room.to_le_bytes())
            .bytes(&self.ticks_per_second.to_le_bytes())
            .bytes(&self.name.0)
            .bytes(&self.board.0)
            .bytes(&[0; 4])
            .finish()
    }

    /// Reads a payload. Bytes after those of this version are left to later ones.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let mut f = Fields(payload.get(..Self::LENGTH)?);
        Some(Self {
            payload: f.u16()?,
            number_format: f.u8()?,
            place: if f.u8()? == 0 { Place::Flash } else { Place::Ram },
            obs: f.u16()?,
            act: f.u16()?,
            period_us: f.u32()?,
            length: f.u32()?,
            crc: f.u32()?,
            room: f.u32()?,
            ticks_per_second: f.u32()?,
            name: Name(f.take()?),
            board: Name(f.take()?),
        })
    }
}

/// The beginning of an episode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reset {
    /// Seed of the noise.
    pub seed: u64,
    /// Control periods without an observation after which the board falls back; zero to wait for ever.
    pub patience: u32,
    /// A telemetry frame after every so many decisions; zero for none.
    pub telemetry: u32,
}

impl Reset {
    /// Bytes of the payload.
    pub const LENGTH: usize = 16;

    /// The payload.
    pub fn bytes(&self) -> [u8; Self::LENGTH] {
        let mut out = [0; Self::LENGTH];
        let builder = Builder::new(&mut out).bytes(&self.seed.to_le_bytes()).bytes(&self.patience.to_le_bytes());
        let _ = builder.bytes(&self.telemetry.to_le_bytes()).finish();
        out
    }

    /// Reads a payload.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let mut f = Fields(payload);
        let reset = Self { seed: f.u64()?, patience: f.u32()?, telemetry: f.u32()? };
        f.end().map(|()| reset)
    }
}

/// A decision.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Action<'p> {
    /// Who decided and why.
    pub status: Status,
    /// Ticks that the decision took, see [`Info::ticks_per_second`].
    pub ticks: u32,
    values: &'p [u8],
}

impl<'p> Action<'p> {
    /// Bytes before the values.
    pub const HEAD: usize = 12;

    /// Writes a payload to the front of `out`; its length.
    pub fn write(status: Status, ticks: u32, action: &[f32], out: &mut [u8]) -> Option<usize> {
        Builder::new(out).bytes(&status.to_bytes()).bytes(&ticks.to_le_bytes()).floats(action).finish()
    }

    /// Reads a payload.
    pub fn read(payload: &'p [u8]) -> Option<Self> {
        let mut f = Fields(payload);
        let (status, ticks) = (Status::from_bytes(&f.take()?)?, f.u32()?);
        (f.0.len() % 4 == 0).then_some(Self { status, ticks, values: f.0 })
    }

    /// The action, in the plant's units.
    pub fn values(&self) -> impl ExactSizeIterator<Item = f32> + 'p {
        self.values.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes))
    }
}

/// The beginning of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// Bytes of the artefact.
    pub length: u32,
    /// CRC-32 of all of them.
    pub crc: u32,
}

impl Begin {
    /// The payload.
    pub fn bytes(&self) -> [u8; 8] {
        let ([a, b, c, d], [e, f, g, h]) = (self.length.to_le_bytes(), self.crc.to_le_bytes());
        [a, b, c, d, e, f, g, h]
    }

    /// Reads a payload.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let mut f = Fields(payload);
        let begin = Self { length: f.u32()?, crc: f.u32()? };
        f.end().map(|()| begin)
    }
}

/// An offset into an artefact and bytes that stand there: a piece of an upload, or the answer to a read.
pub fn piece(payload: &[u8]) -> Option<(u32, &[u8])> {
    let mut f = Fields(payload);
    Some((f.u32()?, f.0))
}

/// What a read asks for: offset and length.
pub fn read_request(payload: &[u8]) -> Option<(u32, u16)> {
    let mut f = Fields(payload);
    let asked = (f.u32()?, f.u16()?);
    f.end().map(|()| asked)
}

/// The channel and the values of a telemetry frame.
pub fn telemetry(payload: &[u8]) -> Option<(u8, impl ExactSizeIterator<Item = f32> + '_)> {
    let (channel, rest) = payload.split_first()?;
    Some((*channel, floats(rest)?))
}

/// Writes the counters' payload to the front of `out`; its length.
pub fn write_counters(counters: Counters, out: &mut [u8]) -> Option<usize> {
    counters.to_array().iter().fold(Builder::new(out), |builder, n| builder.bytes(&n.to_le_bytes())).finish()
}

/// Reads the counters' payload.
pub fn read_counters(payload: &[u8]) -> Option<Counters> {
    let mut f = Fields(payload);
    let mut values = [0; 8];
    for value in &mut values {
        *value = f.u32()?;
    }
    f.end().map(|()| Counters::from_array(values))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowlet::control::{Fault, State};

    #[test]
    fn payloads_come_back() {
        let info = Info {
            payload: 512,
            number_format: 1,
            place: Place::Ram,
            obs: 17,
            act: 6,
            period_us: 10_000,
            length: 60_000,
            crc: 0xdead_beef,
            room: 70_000,
            ticks_per_second: 25_000_000,
            name: Name::new("cheetah-run"),
            board: Name::new("m4f"),
        };
        let mut out = [0xff; 100];
        assert_eq!(info.write(&mut out), Some(Info::LENGTH));
        assert_eq!(Info::read(&out[..Info::LENGTH]), Some(info));
        assert_eq!((info.name.text(), info.board.text()), ("cheetah-run", "m4f"));
        assert_eq!(info.write(&mut [0; Info::LENGTH - 1]), None);

        let reset = Reset { seed: 0x0123_4567_89ab_cdef, patience: 3, telemetry: 9 };
        assert_eq!(Reset::read(&reset.bytes()), Some(reset));
        assert_eq!(reset.bytes()[..8], [0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0x01]);
        let begin = Begin { length: 7, crc: 9 };
        assert_eq!(Begin::read(&begin.bytes()), Some(begin));

        // Bits are carried, those of a NaN too.
        let values = [1.5, -0.0, f32::from_bits(0x7fc1_2345)];
        let status = Status { state: State::Running, fault: Fault::NONE, glitches: 1, late: 2, steps: 5, slack: -3 };
        let length = Action::write(status, 77, &values, &mut out).unwrap();
        let action = Action::read(&out[..length]).unwrap();
        assert_eq!((action.status, action.ticks), (status, 77));
        assert!(action.values().map(f32::to_bits).eq(values.map(f32::to_bits)));

        let counters = Counters::from_array([1, 2, 3, 4, 5, 6, 7, 8]);
        let length = write_counters(counters, &mut out).unwrap();
        assert_eq!(read_counters(&out[..length]), Some(counters));
    }

    #[test]
    fn payloads_of_another_length_are_refused() {
        let bytes = [0; 100];
        for length in 0..100 {
            let payload = &bytes[..length];
            assert_eq!(Reset::read(payload).is_some(), length == Reset::LENGTH);
            assert_eq!(Begin::read(payload).is_some(), length == 8);
            assert_eq!(read_request(payload).is_some(), length == 6);
            assert_eq!(read_counters(payload).is_some(), length == 32);
            assert_eq!(Info::read(payload).is_some(), length >= Info::LENGTH);
            assert_eq!(Action::read(payload).is_some(), length >= 12 && length % 4 == 0);
            assert_eq!(telemetry(payload).is_some(), length % 4 == 1);
            assert_eq!(piece(payload).is_some(), length >= 4);
        }
    }

    #[test]
    fn names_are_cut_between_characters() {
        assert_eq!(Name::<4>::new("abcdef").text(), "abcd");
        assert_eq!(Name::<4>::new("abcé").text(), "abc");
        assert_eq!(Name::<4>([0xff; 4]).text(), "");
    }

    #[test]
    fn refusals_have_codes_and_sentences() {
        for code in 0..=255 {
            if let Some(refusal) = Refusal::from_code(code) {
                assert_eq!(refusal as u8, code);
                assert!(refusal.to_string().len() > 10);
            }
        }
        assert_eq!((0..=255).filter_map(Refusal::from_code).count(), 10);
    }
}
