//! The conversation with the PC: which requests are carried out, what was answered, what is refused in which words.
//!
//! No panics, no allocation; sizes of frames are in types.

use super::{Port, Unfit};
use crate::frame::{self, Counters, Header, VERSION};
use crate::learning::Learning;
use crate::message::{Name, Refusal, kind};
use core::fmt::{self, Write};
use flowlet::finetune::LearnerError;
use flowlet::finetune::session::SessionError;

/// Why a request is answered with an error, with the sentence that goes with it.
pub(super) enum Failure {
    Plain(Refusal),
    Said(Refusal, &'static str),
    Artefact(Unfit),
    Learner(LearnerError),
    Session(SessionError),
}

impl Failure {
    fn refusal(&self) -> Refusal {
        match self {
            Self::Plain(refusal) | Self::Said(refusal, _) => *refusal,
            Self::Artefact(Unfit::Room { .. }) => Refusal::Room,
            Self::Artefact(_) => Refusal::Artefact,
            Self::Learner(LearnerError::Memory { .. }) => Refusal::Room,
            Self::Learner(_) | Self::Session(_) => Refusal::Learning,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(refusal) => refusal.fmt(f),
            Self::Said(_, sentence) => f.write_str(sentence),
            Self::Artefact(unfit) => unfit.fmt(f),
            Self::Learner(error) => error.fmt(f),
            Self::Session(error) => error.fmt(f),
        }
    }
}

/// A sentence in bytes, cut where the room ends.
struct Sentence<'o>(&'o mut [u8], usize);

impl Write for Sentence<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            let mut bytes = [0; 4];
            let bytes = character.encode_utf8(&mut bytes).as_bytes();
            let place = self.0.get_mut(self.1..).and_then(|rest| rest.get_mut(..bytes.len())).ok_or(fmt::Error)?;
            place.copy_from_slice(bytes);
            self.1 += bytes.len();
        }
        Ok(())
    }
}

/// The conversation: who speaks, what was answered last.
pub(super) struct Talk<const FRAME: usize, const WIRE: usize> {
    pub(super) board: Name<16>,
    pub(super) ticks_per_second: u32,
    session: Option<u16>,
    /// Number of the request that was carried out last.
    last: u32,
    pub(super) payload: [u8; FRAME],
    reply: [u8; WIRE],
    reply_len: usize,
    telemetry: u32,
    /// Those that the receiver does not count.
    pub(super) counters: Counters,
}

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Execute,
    Repeat,
    Ignore,
    Foreign,
}

impl<const FRAME: usize, const WIRE: usize> Talk<FRAME, WIRE> {
    /// Longest payload both ways.
    pub(super) const PAYLOAD: usize = {
        assert!(FRAME >= frame::frame_len(128), "a frame must have room for a payload of 128 bytes");
        let payload = FRAME - frame::frame_len(0);
        assert!(payload <= u16::MAX as usize, "a payload has at most 65535 bytes");
        assert!(WIRE >= frame::wire_len(payload), "the room for an answer must be frame::wire_len(payload)");
        payload
    };

    pub(super) fn new(board: &str, ticks_per_second: u32) -> Self {
        Self {
            board: Name::new(board),
            ticks_per_second,
            session: None,
            last: 0,
            payload: [0; FRAME],
            reply: [0; WIRE],
            reply_len: 0,
            telemetry: 0,
            counters: Counters::default(),
        }
    }

    pub(super) fn judge(&mut self, header: Header) -> Verdict {
        let count = &mut self.counters;
        let stale = |count: &mut Counters| {
            count.stale = count.stale.wrapping_add(1);
            Verdict::Ignore
        };
        // A line that echoes gives the board's own answers back.
        if header.kind >= kind::ANSWER {
            return stale(count);
        }
        if header.version != VERSION {
            return Verdict::Foreign;
        }
        if header.kind == kind::HELLO && self.session != Some(header.session) {
            self.session = Some(header.session);
            self.last = header.sequence;
            return Verdict::Execute;
        }
        if self.session != Some(header.session) {
            return stale(count);
        }
        match header.sequence.wrapping_sub(self.last) {
            0 => {
                count.repeated = count.repeated.wrapping_add(1);
                Verdict::Repeat
            }
            ahead if ahead <= u32::MAX / 2 => {
                count.lost = count.lost.wrapping_add(ahead - 1);
                self.last = header.sequence;
                Verdict::Execute
            }
            _ => stale(count),
        }
    }

    /// Tells a PC that speaks another version so. The stored answer stays, since its request may come again.
    pub(super) fn reject_version(&mut self, port: &mut impl Port, to: Header) {
        const PAYLOAD: usize = 64;
        self.counters.refused = self.counters.refused.wrapping_add(1);
        let (mut payload, mut wire) = ([0; PAYLOAD], [0; frame::wire_len(PAYLOAD)]);
        let [code, room @ ..] = &mut payload;
        *code = Refusal::Version as u8;
        let mut sentence = Sentence(room, 0);
        let _ = write!(sentence, "{}", Refusal::Version);
        let length = 1 + sentence.1;
        let header = Header::new(kind::ERROR, to.session, to.sequence);
        let written = frame::encode(header, payload.get(..length).unwrap_or_default(), &mut wire).unwrap_or(0);
        port.write(wire.get(..written).unwrap_or_default());
    }

    /// Sends the answer whose payload was written to `self.payload`, and keeps it for a repetition.
    pub(super) fn answer(&mut self, port: &mut impl Port, to: Header, result: Result<usize, Failure>) {
        let (kind, length) = match result {
            Ok(length) => (to.kind | kind::ANSWER, length),
            Err(failure) => {
                self.counters.refused = self.counters.refused.wrapping_add(1);
                let [code, room @ ..] = &mut self.payload[..] else { return };
                *code = failure.refusal() as u8;
                let room_len = room.len().min(Self::PAYLOAD - 1);
                let mut sentence = Sentence(room.get_mut(..room_len).unwrap_or_default(), 0);
                // What is cut off of a sentence is missing, nothing else.
                let _ = write!(sentence, "{failure}");
                (kind::ERROR, 1 + sentence.1)
            }
        };
        let header = Header::new(kind, to.session, to.sequence);
        let payload = self.payload.get(..length).unwrap_or_default();
        self.reply_len = frame::encode(header, payload, &mut self.reply).unwrap_or(0);
        self.repeat(port);
    }

    pub(super) fn repeat(&self, port: &mut impl Port) {
        port.write(self.reply.get(..self.reply_len).unwrap_or_default());
    }

    pub(super) fn send_telemetry(&mut self, port: &mut impl Port, payload: &[u8]) {
        // The largest is that of learning.
        let mut wire = [0; frame::wire_len(Learning::LENGTH)];
        let header = Header::new(kind::TELEMETRY, self.session.unwrap_or(0), self.telemetry);
        if let Some(length) = frame::encode(header, payload, &mut wire) {
            self.telemetry = self.telemetry.wrapping_add(1);
            port.write(wire.get(..length).unwrap_or_default());
        }
    }
}
