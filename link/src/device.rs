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
//!
//! A board that is asked to learn does so on the artefact that decides, in the room for uploads, until an upload begins.

mod pupil;
mod talk;

use crate::frame::{self, Counters, Header, Receiver};
use crate::learning::{End, Learn, Learning, Sample};
use crate::message::{self, Action, Begin, Builder, Info, Name, Place, Refusal, Reset, kind};
use core::fmt;
use flowlet::control::{Fault, Gate, Limits, Reason, State, Status, Supervisor, Tolerance};
use flowlet::policy::{ActionRange, Artefact, Policy, PolicyError, PolicyScratch};
use pupil::{Pupil, Room};
use rand_xoshiro::Xoshiro128PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;
use talk::{Failure, Talk, Verdict};
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
    /// How learning goes, as often as the PC is told: for a log.
    fn learning(&mut self, _: &Learning) {}
}

/// Memory that a board lends the service.
#[derive(Debug)]
pub struct Memory<'m> {
    /// Room for uploads. Two policies lie in it for as long as one replaces another.
    pub uploads: &'m mut [u32],
    /// Scratch of a decision: observation, action and [`PolicyScratch::len`] floats.
    pub scratch: &'m mut [f32],
}

/// What an upload takes first.
const UPLOADS: &str = "bytes of room for uploads";

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
                write!(f, "the artefact needs {needed} {what} and the board has {found}: ")?;
                f.write_str(if *what == UPLOADS {
                    "export it by --without-critic or --quantize int8, or use a smaller network"
                } else {
                    "use a smaller network"
                })
            }
            Self::Crc => f.write_str("the bytes that arrived are not the ones that were announced: upload again"),
        }
    }
}

impl core::error::Error for Unfit {}

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

impl Episode {
    /// The payload of the telemetry frame.
    fn telemetry(&self) -> [u8; 13] {
        let mean = self.total / u64::from(self.decisions.max(1));
        let mut payload = [0; 13];
        let values = [self.decisions as f32, self.worst as f32, mean as f32];
        let _ = Builder::new(&mut payload).bytes(&[message::TELEMETRY_DECISIONS]).floats(&values).finish();
        payload
    }
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
    let mut next = None;
    loop {
        let (bytes, staging) = slot.split(flash, memory.uploads);
        let policy = admit(bytes, memory.scratch, Talk::<FRAME, WIRE>::PAYLOAD)?;
        let crc = frame::crc32(bytes);
        // Until another policy takes over.
        loop {
            let staging = &mut *staging;
            let mut service = Service { policy, crc, slot, scratch: &mut *memory.scratch, staging, pupil: None };
            let asked = match next.take() {
                Some((header, Next::Learn(learn))) => lesson(service, (header, learn), &mut receiver, &mut talk, port),
                asked => service.run(asked, &mut receiver, &mut talk, port),
            };
            next = match asked {
                Some(asked) => Some(asked),
                None => return Ok(()),
            };
            if let Some((_, Next::Policy(place))) = next {
                slot = place;
                break;
            }
        }
    }
}

/// A stretch of service in which the board learns, in the room for uploads. Apart, so that a board that never does needs no
/// stack for it.
#[inline(never)]
fn lesson<P: Port, const FRAME: usize, const WIRE: usize>(
    service: Service<'_, '_>,
    (header, learn): (Header, Learn),
    receiver: &mut Receiver<FRAME>,
    talk: &mut Talk<FRAME, WIRE>,
    port: &mut P,
) -> Option<(Header, Next)> {
    let Service { policy, crc, slot, scratch, staging, .. } = service;
    match Pupil::new(&policy, learn, staging) {
        Ok(mut pupil) => {
            let pupil = Some(&mut pupil);
            let mut service = Service { policy, crc, slot, scratch, staging: &mut [], pupil };
            service.run(Some((header, Next::Learn(learn))), receiver, talk, port)
        }
        Err(failure) => {
            talk.answer(port, header, Err(failure));
            Some((header, Next::Answered))
        }
    }
}

/// What ends one stretch of service, and is answered by the one after it.
#[derive(Clone, Copy)]
enum Next {
    /// Another policy decides.
    Policy(Slot),
    /// The room for uploads becomes the learner's.
    Learn(Learn),
    /// The learner's memory becomes room for uploads.
    Upload(Begin),
    /// Nothing: it was answered already.
    Answered,
}

/// One policy in service, that learns or not.
struct Service<'a, 'b> {
    policy: Policy<'b>,
    crc: u32,
    slot: Slot,
    scratch: &'a mut [f32],
    /// Room for uploads; none while the policy learns.
    staging: &'a mut [u32],
    pupil: Option<&'a mut Pupil<'b>>,
}

impl Service<'_, '_> {
    /// Answers what was `asked` before, then serves until a request ends this stretch of service or the port ends all.
    fn run<P: Port, const FRAME: usize, const WIRE: usize>(
        &mut self,
        asked: Option<(Header, Next)>,
        receiver: &mut Receiver<FRAME>,
        talk: &mut Talk<FRAME, WIRE>,
        port: &mut P,
    ) -> Option<(Header, Next)> {
        let (mut episode, mut upload) = (None, None);
        port.stop_periods();
        if let Some((header, next)) = asked
            && !matches!(next, Next::Answered)
        {
            let result = match next {
                Next::Answered => Ok(0),
                Next::Policy(_) => self.info(talk),
                Next::Upload(begin) => self.begin(begin).map(|begun| {
                    upload = Some(begun);
                    0
                }),
                Next::Learn(_) => {
                    let begun = self.pupil.as_ref().and_then(|pupil| pupil.begun(&mut talk.payload));
                    begun.ok_or(Failure::Plain(Refusal::Room))
                }
            };
            talk.answer(port, header, result);
        }
        loop {
            let Some(byte) = port.read() else {
                starve(&mut episode, port);
                if self.pupil.as_mut().is_some_and(|pupil| pupil.slice()) {
                    continue;
                }
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
                    self.decide(talk, payload, episode.as_mut(), port, false)
                }
                kind::SAMPLE => {
                    starve(&mut episode, port);
                    self.sample(talk, payload, &mut episode, port)
                }
                kind::HELLO => self.info(talk),
                kind::RESET => self.reset(payload, port).map(|begun| {
                    self.pupil.iter_mut().for_each(|pupil| pupil.cut());
                    episode = Some(begun);
                    0
                }),
                kind::BEGIN => match Begin::read(payload) {
                    Some(begin) if self.pupil.is_some() => return Some((header, Next::Upload(begin))),
                    Some(begin) => self.begin(begin).map(|begun| {
                        upload = Some(begun);
                        0
                    }),
                    None => Err(Failure::Plain(Refusal::Length)),
                },
                kind::LEARN => match Learn::read(payload) {
                    // One that cannot be is refused before anything is given up for it.
                    Some(learn) => {
                        let found = self.pupil.as_ref().map_or(self.staging.len(), |pupil| pupil.room());
                        match Room::of(&self.policy, &learn).and_then(|room| room.check(found)) {
                            Ok(()) => return Some((header, Next::Learn(learn))),
                            Err(failure) => Err(failure),
                        }
                    }
                    None => Err(Failure::Said(
                        Refusal::Learning,
                        "the constants have another form than this board's: flash the firmware of this release",
                    )),
                },
                kind::SNAPSHOT => match (&mut self.pupil, &episode) {
                    (None, _) => Err(Failure::Plain(Refusal::NotLearning)),
                    (_, Some(_)) => Err(Failure::Plain(Refusal::NotAtRest)),
                    (Some(pupil), None) => pupil.snapshot(payload, &mut talk.payload),
                },
                kind::PARAMETERS => match self.pupil.as_ref().and_then(|pupil| pupil.taken()) {
                    Some(bytes) => piece_of(bytes, payload, Talk::<FRAME, WIRE>::PAYLOAD, &mut talk.payload),
                    None => Err(Failure::Plain(Refusal::NotLearning)),
                },
                kind::CHUNK => self.chunk(payload, upload.as_mut()),
                kind::ABORT => {
                    upload = None;
                    Ok(0)
                }
                kind::COMMIT => match self.commit(upload.take(), Talk::<FRAME, WIRE>::PAYLOAD) {
                    Ok(slot) => return Some((header, Next::Policy(slot))),
                    Err(failure) => Err(failure),
                },
                kind::READ => {
                    let bytes = self.policy.artefact().bytes();
                    piece_of(bytes, payload, Talk::<FRAME, WIRE>::PAYLOAD, &mut talk.payload)
                }
                kind::COUNT => {
                    let Counters { repeated, lost, stale, refused, .. } = talk.counters;
                    let counters = Counters { repeated, lost, stale, refused, ..receiver.counters };
                    message::write_counters(counters, &mut talk.payload).ok_or(Failure::Plain(Refusal::Room))
                }
                _ => Err(Failure::Plain(Refusal::Kind)),
            };
            talk.answer(port, header, result);
            let decided = episode.as_ref().filter(|episode| before.is_some_and(|before| before != episode.decisions));
            if header.kind == kind::OBSERVATION {
                let due = |episode: &&Episode| {
                    let every = episode.reset.telemetry;
                    every != 0 && episode.decisions.is_multiple_of(every)
                };
                if let Some(episode) = decided.filter(due) {
                    talk.send_telemetry(port, &episode.telemetry());
                }
            } else if header.kind == kind::SAMPLE
                && let Some(pupil) = &self.pupil
                && (decided.is_some() || before.is_some() && episode.is_none())
                && let Some(learning) = pupil.telemetry(episode.is_none())
            {
                talk.send_telemetry(port, &learning.bytes());
                port.learning(&learning);
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

    /// What the last decision led to, and the next one where there is one; where there is none the board is at rest.
    fn sample<const FRAME: usize, const WIRE: usize>(
        &mut self,
        talk: &mut Talk<FRAME, WIRE>,
        payload: &[u8],
        episode: &mut Option<Episode>,
        port: &mut impl Port,
    ) -> Result<usize, Failure> {
        let pupil = self.pupil.as_mut().ok_or(Failure::Plain(Refusal::NotLearning))?;
        let under_way = episode.as_mut().ok_or(Failure::Plain(Refusal::NoEpisode))?;
        let sample = Sample::read(payload).ok_or(Failure::Plain(Refusal::Length))?;
        let no_room = || Failure::Plain(Refusal::Room);
        let (observation, action, _) = carve(&self.policy, self.scratch).ok_or_else(no_room)?;
        if sample.end == End::GoesOn && sample.observation().len() != 4 * observation.len() {
            return Err(Failure::Plain(Refusal::Length));
        }
        pupil.learn(&sample, action);
        if sample.end == End::GoesOn {
            return self.decide(talk, sample.observation(), Some(under_way), port, true);
        }
        let status = status(&self.policy, &under_way.supervisor);
        *episode = None;
        port.stop_periods();
        Action::write(status, 0, &[], &mut talk.payload).ok_or_else(no_room)
    }

    /// A decision: the policy's, or that of the weights whose turn it is where the board learns.
    fn decide<const FRAME: usize, const WIRE: usize>(
        &mut self,
        talk: &mut Talk<FRAME, WIRE>,
        payload: &[u8],
        episode: Option<&mut Episode>,
        port: &mut impl Port,
        learns: bool,
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
            let pupil = self.pupil.as_mut().filter(|_| learns);
            let (result, taken) = port.measure(|| match pupil {
                Some(pupil) => pupil.decide(&self.policy, observation, &mut memory, action),
                None => self.policy.act(observation, &mut episode.noise, &mut memory, action),
            });
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
        if let Some(pupil) = self.pupil.as_mut().filter(|_| learns) {
            pupil.done(&status);
        }
        Action::write(status, ticks, action, &mut talk.payload).ok_or_else(no_room)
    }

    fn begin(&mut self, begin: Begin) -> Result<Upload, Failure> {
        let (needed, found) = (begin.length as usize, self.staging.len() * 4);
        if needed == 0 || needed > found {
            return Err(Failure::Artefact(Unfit::Room { what: UPLOADS, needed, found }));
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
}

/// The bytes that a read asks for: as many as exist and fit a frame.
fn piece_of(bytes: &[u8], asked: &[u8], payload: usize, out: &mut [u8]) -> Result<usize, Failure> {
    let (offset, length) = message::read_request(asked).ok_or(Failure::Plain(Refusal::Length))?;
    let bytes = bytes.get(offset as usize..).unwrap_or_default();
    let bytes = bytes.get(..usize::from(length).min(payload - 4)).unwrap_or(bytes);
    let written = Builder::new(out).bytes(&offset.to_le_bytes()).bytes(bytes).finish();
    written.ok_or(Failure::Plain(Refusal::Room))
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
