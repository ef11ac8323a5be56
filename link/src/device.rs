//! The board's side: answers requests, decides by the policy in flash or by an uploaded one.
//!
//! [`serve`] is the whole program of a board behind a serial line ([`Port`]). An upload goes into RAM beside the policy
//! that decides; it is checked and self-tested in full before it takes over, and one that is refused leaves the old
//! policy deciding. Sizes of frames are in types, the rest of the memory is lent ([`Memory`]); policies of any shape
//! run that fit it. No panics, no allocation. A request is carried out at most once: one that comes again gets the
//! stored answer.
//!
//! Between policy and line stand the [`Supervisor`] and the [`Gate`] that a robot's `Controller` is made of, one period a
//! decision: an observation that is no number is held over, the third in a row latches, and what is answered is finite and
//! inside the artefact's range whatever came in. What a controller has beside them is the robot's: limits of rate and jerk,
//! plausible ranges, the deadline, control periods between decisions. The sizes of [`flowlet::control::Controller`] are in
//! types, those of an upload are not known before it comes.

use crate::frame::{self, Counters, Header, Receiver, VERSION};
use crate::message::{self, Action, Begin, Builder, Info, Name, Place, Refusal, Reset, kind};
use core::fmt::{self, Write};
use flowlet::control::{Fault, Gate, Limits, Reason, State, Status, Supervisor, Tolerance};
use flowlet::policy::{ActionRange, Artefact, Policy, PolicyError, PolicyScratch};
use rand_xoshiro::Xoshiro128PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;
use zerocopy::IntoBytes;

/// What the service needs of a board.
pub trait Port {
    /// Ticks a second of [`measure`](Self::measure); zero where it counts instructions.
    const TICKS_PER_SECOND: u32;
    /// A byte that has come in, if there is one. Does not wait.
    fn read(&mut self) -> Option<u8>;
    /// Sends bytes; may wait for the transmitter.
    fn write(&mut self, bytes: &[u8]);
    /// Rests until a byte has come or a period has passed, or less long; `false` ends the service.
    fn idle(&mut self) -> bool;
    /// Starts to count control periods; `false` when the timer cannot.
    fn start_periods(&mut self, period_us: u32) -> bool;
    /// Stops counting, so that nothing but a byte ends the rest.
    fn stop_periods(&mut self);
    /// Periods since the start, wrapping.
    fn periods(&mut self) -> u32;
    /// Does `work` and counts its ticks.
    fn measure<R>(&mut self, work: impl FnOnce() -> R) -> (R, u32);
}

/// Memory that a board lends the service.
#[derive(Debug)]
pub struct Memory<'m> {
    /// Room for uploads. Two policies lie in it for as long as one replaces another.
    pub uploads: &'m mut [u32],
    /// Scratch of a decision: observation, action and [`PolicyScratch::len`] floats.
    pub scratch: &'m mut [f32],
}

/// Why an artefact cannot be used here.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Unfit {
    /// The artefact is damaged, of another format, or fails its self-test.
    Policy(PolicyError),
    /// Something of it does not fit the board.
    Room {
        /// What does not fit.
        what: &'static str,
        /// How much it needs.
        needed: usize,
        /// How much there is.
        found: usize,
    },
    /// The bytes that arrived are not the ones that were announced.
    Crc,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy(error) => error.fmt(f),
            Self::Room { what, needed, found } => {
                write!(f, "the artefact needs {needed} {what} and the board has {found}: use a smaller network")
            }
            Self::Crc => f.write_str("the bytes that arrived are not the ones that were announced: upload again"),
        }
    }
}

impl core::error::Error for Unfit {}

/// Why a request is answered with an error, with the sentence that goes with it.
enum Failure {
    Plain(Refusal),
    Said(Refusal, &'static str),
    Artefact(Unfit),
}

impl Failure {
    fn refusal(&self) -> Refusal {
        match self {
            Self::Plain(refusal) | Self::Said(refusal, _) => *refusal,
            Self::Artefact(Unfit::Room { .. }) => Refusal::Room,
            Self::Artefact(_) => Refusal::Artefact,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(refusal) => refusal.fmt(f),
            Self::Said(_, sentence) => f.write_str(sentence),
            Self::Artefact(unfit) => unfit.fmt(f),
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
struct Talk<const FRAME: usize, const WIRE: usize> {
    board: Name<16>,
    ticks_per_second: u32,
    session: Option<u16>,
    /// Number of the request that was carried out last.
    last: u32,
    payload: [u8; FRAME],
    reply: [u8; WIRE],
    reply_len: usize,
    telemetry: u32,
    /// Those that the receiver does not count.
    counters: Counters,
}

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Execute,
    Repeat,
    Ignore,
    Foreign,
}

impl<const FRAME: usize, const WIRE: usize> Talk<FRAME, WIRE> {
    /// Longest payload both ways.
    const PAYLOAD: usize = {
        assert!(FRAME >= frame::frame_len(128), "a frame must have room for a payload of 128 bytes");
        let payload = FRAME - frame::frame_len(0);
        assert!(payload <= u16::MAX as usize, "a payload has at most 65535 bytes");
        assert!(WIRE >= frame::wire_len(payload), "the room for an answer must be frame::wire_len(payload)");
        payload
    };

    fn new(board: &str, ticks_per_second: u32) -> Self {
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

    fn judge(&mut self, header: Header) -> Verdict {
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
    fn reject_version(&mut self, port: &mut impl Port, to: Header) {
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
    fn answer(&mut self, port: &mut impl Port, to: Header, result: Result<usize, Failure>) {
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

    fn repeat(&self, port: &mut impl Port) {
        port.write(self.reply.get(..self.reply_len).unwrap_or_default());
    }

    fn send_telemetry(&mut self, port: &mut impl Port, channel: u8, values: &[f32; 3]) {
        const PAYLOAD: usize = 1 + 4 * 3;
        let (mut payload, mut wire) = ([0; PAYLOAD], [0; frame::wire_len(PAYLOAD)]);
        let header = Header::new(kind::TELEMETRY, self.session.unwrap_or(0), self.telemetry);
        let written = Builder::new(&mut payload).bytes(&[channel]).floats(values).finish();
        if written.is_some()
            && let Some(length) = frame::encode(header, &payload, &mut wire)
        {
            self.telemetry = self.telemetry.wrapping_add(1);
            port.write(wire.get(..length).unwrap_or_default());
        }
    }
}

/// Where the policy that decides lies: in flash, or at one end of the room for uploads.
#[derive(Clone, Copy)]
enum Slot {
    Flash,
    /// At the front, so many bytes.
    Front(usize),
    /// At the end.
    Back(usize),
}

impl Slot {
    /// The bytes of the artefact and the room that is left for another.
    fn split<'a>(self, flash: &'a [u8], uploads: &'a mut [u32]) -> (&'a [u8], &'a mut [u32]) {
        match self {
            Self::Flash => (flash, uploads),
            Self::Front(length) => {
                let (held, rest) = uploads.split_at_mut(length.div_ceil(4).min(uploads.len()));
                (held.as_bytes().get(..length).unwrap_or_default(), rest)
            }
            Self::Back(length) => {
                let at = uploads.len().saturating_sub(length.div_ceil(4));
                let (rest, held) = uploads.split_at_mut(at);
                (held.as_bytes().get(..length).unwrap_or_default(), rest)
            }
        }
    }

    /// Where the next upload goes: to the other end.
    fn next(self, length: usize) -> Self {
        match self {
            Self::Flash | Self::Back(_) => Self::Front(length),
            Self::Front(_) => Self::Back(length),
        }
    }
}

/// An upload under way.
struct Upload {
    begin: Begin,
    received: u32,
}

/// An episode under way.
struct Episode {
    noise: Xoshiro128PlusPlus,
    reset: Reset,
    /// Who drives: armed by the reset, what it latches stays until the next one.
    supervisor: Supervisor,
    /// Number of the period in which the last observation came.
    heard: u32,
    decisions: u32,
    worst: u32,
    total: u64,
}

/// Checks an artefact for this board: format, room, self-test. The scratch is left prepared for it.
fn admit<'b>(bytes: &'b [u8], scratch: &mut [f32], payload: usize) -> Result<Policy<'b>, Unfit> {
    let artefact = Artefact::new(bytes).map_err(|error| Unfit::Policy(PolicyError::Artefact(error)))?;
    let policy = Policy::new(artefact).map_err(Unfit::Policy)?;
    let shape = artefact.velocity().shape();
    let (most_obs, most_act) = (payload / 4, (payload - Action::HEAD) / 4);
    if shape.obs > most_obs {
        return Err(Unfit::Room { what: "observation channels in a frame", needed: shape.obs, found: most_obs });
    }
    if shape.act > most_act {
        return Err(Unfit::Room { what: "action channels in a frame", needed: shape.act, found: most_act });
    }
    let (needed, found) = (scratch_len(&policy), scratch.len());
    let too_small = Unfit::Room { what: "floats of scratch", needed, found };
    let (_, action, mut memory) = carve(&policy, scratch).ok_or(too_small)?;
    policy.prepare(&mut memory).map_err(Unfit::Policy)?;
    policy.self_test(&mut memory, action).map_err(Unfit::Policy)?;
    Ok(policy)
}

/// Floats of [`Memory::scratch`] that a policy needs.
pub fn scratch_len(policy: &Policy<'_>) -> usize {
    let shape = policy.artefact().velocity().shape();
    PolicyScratch::len(shape, policy.plan()).saturating_add(shape.obs).saturating_add(shape.act)
}

/// Observation, action and the memory of a decision.
fn carve<'s>(policy: &Policy<'_>, scratch: &'s mut [f32]) -> Option<(&'s mut [f32], &'s mut [f32], PolicyScratch<'s>)> {
    let shape = policy.artefact().velocity().shape();
    let (observation, rest) = scratch.split_at_mut_checked(shape.obs)?;
    let (action, rest) = rest.split_at_mut_checked(shape.act)?;
    Some((observation, action, PolicyScratch::carve(shape, policy.plan(), rest)?))
}

/// Serves requests for ever: with the policy `flash` at first, and with what is uploaded later.
///
/// `FRAME` is [`frame::frame_len`] and `WIRE` [`frame::wire_len`] of the longest payload, at least 128 bytes. An error is
/// returned only when `flash` itself cannot be used; otherwise the service ends when [`Port::idle`] says so.
pub fn serve<P: Port, const FRAME: usize, const WIRE: usize>(
    board: &str,
    flash: &[u8],
    memory: Memory<'_>,
    port: &mut P,
) -> Result<(), Unfit> {
    let mut receiver = Receiver::<FRAME>::new();
    let mut talk = Talk::<FRAME, WIRE>::new(board, P::TICKS_PER_SECOND);
    let mut slot = Slot::Flash;
    let mut committed = None;
    loop {
        let (bytes, staging) = slot.split(flash, memory.uploads);
        let policy = admit(bytes, memory.scratch, Talk::<FRAME, WIRE>::PAYLOAD)?;
        let mut service = Service { policy, crc: frame::crc32(bytes), slot, scratch: memory.scratch, staging };
        if let Some(header) = committed {
            let length = service.info(&mut talk);
            talk.answer(port, header, length);
        }
        match service.run(&mut receiver, &mut talk, port) {
            Some((next, header)) => {
                slot = next;
                committed = Some(header);
            }
            None => return Ok(()),
        }
    }
}

/// One policy in service.
struct Service<'a> {
    policy: Policy<'a>,
    crc: u32,
    slot: Slot,
    scratch: &'a mut [f32],
    staging: &'a mut [u32],
}

impl Service<'_> {
    /// Until another policy takes over (its place and the request that asked for it) or the port ends the service.
    fn run<P: Port, const FRAME: usize, const WIRE: usize>(
        &mut self,
        receiver: &mut Receiver<FRAME>,
        talk: &mut Talk<FRAME, WIRE>,
        port: &mut P,
    ) -> Option<(Slot, Header)> {
        let (mut episode, mut upload) = (None, None);
        port.stop_periods();
        loop {
            let Some(byte) = port.read() else {
                starve(&mut episode, port);
                if !port.idle() {
                    return None;
                }
                continue;
            };
            let Some((header, payload)) = receiver.push(byte) else { continue };
            match talk.judge(header) {
                Verdict::Ignore => continue,
                Verdict::Foreign => {
                    talk.reject_version(port, header);
                    continue;
                }
                Verdict::Repeat => {
                    talk.repeat(port);
                    continue;
                }
                Verdict::Execute => {}
            }
            let before = episode.as_ref().map(|episode: &Episode| episode.decisions);
            let result = match header.kind {
                kind::OBSERVATION => {
                    starve(&mut episode, port);
                    self.decide(talk, payload, episode.as_mut(), port)
                }
                kind::HELLO => self.info(talk),
                kind::RESET => self.reset(payload, port).map(|begun| {
                    episode = Some(begun);
                    0
                }),
                kind::BEGIN => self.begin(payload).map(|begun| {
                    upload = Some(begun);
                    0
                }),
                kind::CHUNK => self.chunk(payload, upload.as_mut()),
                kind::ABORT => {
                    upload = None;
                    Ok(0)
                }
                kind::COMMIT => match self.commit(upload.take(), Talk::<FRAME, WIRE>::PAYLOAD) {
                    Ok(slot) => return Some((slot, header)),
                    Err(failure) => Err(failure),
                },
                kind::READ => self.read(talk, payload),
                kind::COUNT => {
                    let Counters { repeated, lost, stale, refused, .. } = talk.counters;
                    let counters = Counters { repeated, lost, stale, refused, ..receiver.counters };
                    message::write_counters(counters, &mut talk.payload).ok_or(Failure::Plain(Refusal::Room))
                }
                _ => Err(Failure::Plain(Refusal::Kind)),
            };
            talk.answer(port, header, result);
            if let Some(episode) = &episode
                && header.kind == kind::OBSERVATION
                && before != Some(episode.decisions)
                && episode.reset.telemetry != 0
                && episode.decisions % episode.reset.telemetry == 0
            {
                let mean = episode.total / u64::from(episode.decisions.max(1));
                let values = [episode.decisions as f32, episode.worst as f32, mean as f32];
                talk.send_telemetry(port, message::TELEMETRY_DECISIONS, &values);
            }
        }
    }

    fn info<const FRAME: usize, const WIRE: usize>(&self, talk: &mut Talk<FRAME, WIRE>) -> Result<usize, Failure> {
        let artefact = self.policy.artefact();
        let shape = artefact.velocity().shape();
        let info = Info {
            payload: Talk::<FRAME, WIRE>::PAYLOAD as u16,
            // Word 10 of the header, see docs/format.md.
            number_format: artefact.bytes().get(40).copied().unwrap_or(0),
            place: if matches!(self.slot, Slot::Flash) { Place::Flash } else { Place::Ram },
            obs: shape.obs as u16,
            act: shape.act as u16,
            period_us: artefact.period_us(),
            length: artefact.bytes().len() as u32,
            crc: self.crc,
            room: (self.staging.len() * 4) as u32,
            ticks_per_second: talk.ticks_per_second,
            name: Name::new(artefact.name()),
            board: talk.board,
        };
        info.write(&mut talk.payload).ok_or(Failure::Plain(Refusal::Room))
    }

    fn reset(&mut self, payload: &[u8], port: &mut impl Port) -> Result<Episode, Failure> {
        let reset = Reset::read(payload).ok_or(Failure::Plain(Refusal::Length))?;
        port.stop_periods();
        if reset.patience != 0 && !port.start_periods(self.policy.artefact().period_us()) {
            return Err(Failure::Said(
                Refusal::Room,
                "the control period does not fit the board's timer: begin the episode without a limit of patience",
            ));
        }
        let heard = port.periods();
        let noise = Xoshiro128PlusPlus::seed_from_u64(reset.seed);
        let no_room = || Failure::Plain(Refusal::Room);
        let mut supervisor = Supervisor::new(Tolerance::default()).ok_or_else(no_room)?;
        supervisor.arm().map_err(|_| no_room())?;
        self.forget();
        Ok(Episode { noise, reset, supervisor, heard, decisions: 0, worst: 0, total: 0 })
    }

    /// What would be held, should a sensor fail, is the fallback.
    fn forget(&mut self) {
        if let Some((_, action, _)) = carve(&self.policy, self.scratch) {
            action.fill(f32::NAN);
            pass(self.policy.artefact(), action);
        }
    }

    fn decide<const FRAME: usize, const WIRE: usize>(
        &mut self,
        talk: &mut Talk<FRAME, WIRE>,
        payload: &[u8],
        episode: Option<&mut Episode>,
        port: &mut impl Port,
    ) -> Result<usize, Failure> {
        let episode = episode.ok_or(Failure::Plain(Refusal::NoEpisode))?;
        let no_room = || Failure::Plain(Refusal::Room);
        let (observation, action, mut memory) = carve(&self.policy, self.scratch).ok_or_else(no_room)?;
        let values = message::floats(payload).filter(|values| values.len() == observation.len());
        let values = values.ok_or(Failure::Plain(Refusal::Length))?;
        observation.iter_mut().zip(values).for_each(|(place, value)| *place = value);
        episode.heard = port.periods();
        let bad = observation.iter().position(|value| !value.is_finite());
        let sample = bad.map_or(Fault::NONE, |channel| Fault::at(Reason::NotFinite, channel));
        let (mut decided, mut ticks) = (false, 0);
        if episode.supervisor.begin(false, sample) == State::Running {
            let act = || self.policy.act(observation, &mut episode.noise, &mut memory, action);
            let (result, taken) = port.measure(act);
            ticks = taken;
            decided = result.is_ok();
            if decided {
                episode.decisions = episode.decisions.wrapping_add(1);
                episode.worst = episode.worst.max(ticks);
                episode.total = episode.total.wrapping_add(u64::from(ticks));
            } else {
                episode.supervisor.raise(Fault::of(Reason::Policy));
            }
        }
        if !episode.supervisor.drives() {
            action.fill(f32::NAN);
        }
        pass(self.policy.artefact(), action);
        episode.supervisor.end(false, decided);
        let status = status(&self.policy, &episode.supervisor);
        Action::write(status, ticks, action, &mut talk.payload).ok_or_else(no_room)
    }

    fn begin(&mut self, payload: &[u8]) -> Result<Upload, Failure> {
        let begin = Begin::read(payload).ok_or(Failure::Plain(Refusal::Length))?;
        let (needed, found) = (begin.length as usize, self.staging.len() * 4);
        if needed == 0 || needed > found {
            return Err(Failure::Artefact(Unfit::Room { what: "bytes of room for uploads", needed, found }));
        }
        Ok(Upload { begin, received: 0 })
    }

    /// The part of the room that an upload of so many bytes takes.
    fn place(&mut self, length: usize) -> &mut [u8] {
        let words = length.div_ceil(4).min(self.staging.len());
        let at = match self.slot {
            Slot::Front(_) => self.staging.len() - words,
            Slot::Flash | Slot::Back(_) => 0,
        };
        self.staging.get_mut(at..).unwrap_or_default().as_mut_bytes().get_mut(..length).unwrap_or_default()
    }

    fn chunk(&mut self, payload: &[u8], upload: Option<&mut Upload>) -> Result<usize, Failure> {
        let upload = upload.ok_or(Failure::Plain(Refusal::Order))?;
        let (offset, bytes) = message::piece(payload).ok_or(Failure::Plain(Refusal::Length))?;
        if offset != upload.received || bytes.len() as u64 > u64::from(upload.begin.length - upload.received) {
            return Err(Failure::Plain(Refusal::Order));
        }
        let at = offset as usize;
        let room = self.place(upload.begin.length as usize).get_mut(at..at + bytes.len());
        room.ok_or(Failure::Plain(Refusal::Order))?.copy_from_slice(bytes);
        upload.received += bytes.len() as u32;
        Ok(0)
    }

    fn commit(&mut self, upload: Option<Upload>, payload: usize) -> Result<Slot, Failure> {
        let upload = upload.ok_or(Failure::Plain(Refusal::Order))?;
        if upload.received != upload.begin.length {
            return Err(Failure::Plain(Refusal::Order));
        }
        let length = upload.begin.length as usize;
        let words = length.div_ceil(4);
        let at = match self.slot {
            Slot::Front(_) => self.staging.len() - words,
            Slot::Flash | Slot::Back(_) => 0,
        };
        let bytes = self.staging.get(at..).map(IntoBytes::as_bytes).and_then(|bytes| bytes.get(..length));
        let bytes = bytes.unwrap_or_default();
        let verdict = if frame::crc32(bytes) == upload.begin.crc {
            admit(bytes, self.scratch, payload).map(|_| ())
        } else {
            Err(Unfit::Crc)
        };
        match verdict {
            Ok(()) => Ok(self.slot.next(length)),
            Err(unfit) => {
                // The scratch was the candidate's for a moment; the table of the policy that goes on is made anew.
                if let Some((_, _, mut memory)) = carve(&self.policy, self.scratch) {
                    let _ = self.policy.prepare(&mut memory);
                }
                self.forget();
                Err(Failure::Artefact(unfit))
            }
        }
    }

    fn read<const FRAME: usize, const WIRE: usize>(
        &self,
        talk: &mut Talk<FRAME, WIRE>,
        payload: &[u8],
    ) -> Result<usize, Failure> {
        let (offset, length) = message::read_request(payload).ok_or(Failure::Plain(Refusal::Length))?;
        let bytes = self.policy.artefact().bytes().get(offset as usize..).unwrap_or_default();
        let bytes = bytes.get(..usize::from(length).min(Talk::<FRAME, WIRE>::PAYLOAD - 4)).unwrap_or(bytes);
        let written = Builder::new(&mut talk.payload).bytes(&offset.to_le_bytes()).bytes(bytes).finish();
        written.ok_or(Failure::Plain(Refusal::Room))
    }
}

/// Holds an action to the artefact's range; what is no number becomes the action nearest to zero.
fn pass(artefact: &Artefact<'_>, action: &mut [f32]) {
    let ActionRange { low, high, .. } = *artefact.range();
    for ((a, low), high) in action.iter_mut().zip(low).zip(high) {
        let fallback = 0f32.clamp(*low, *high);
        let limits = Limits::new(*low, *high).fallback(fallback).stop(fallback);
        // The gate takes every range that the format allows.
        *a = Gate::new(&[limits], artefact.period_us()).map_or(fallback, |mut gate| {
            let [command] = gate.apply(&[*a]);
            command
        });
    }
}

fn status(policy: &Policy<'_>, supervisor: &Supervisor) -> Status {
    let steps = u8::try_from(policy.plan().steps).unwrap_or(u8::MAX);
    let [glitches, late] = supervisor.counts();
    Status { state: supervisor.state(), fault: supervisor.fault(), glitches, late, steps, slack: 0 }
}

/// Latches the want of observations once the episode's patience is over.
fn starve(episode: &mut Option<Episode>, port: &mut impl Port) {
    if let Some(episode) = episode
        && episode.reset.patience != 0
        && port.periods().wrapping_sub(episode.heard) >= episode.reset.patience
    {
        episode.supervisor.raise(Fault::of(Reason::Missing));
    }
}
