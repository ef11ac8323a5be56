//! Hardware in the loop, the PC's side: a board decides for a plant that is simulated here.
//!
//! A [`Board`] is a line ([`mod@line`], with [`faults`] on it in tests) and the protocol of `flowlet-link`: it asks, waits,
//! asks again, and never takes an answer for another question's. [`BoardPlayer`] plays episodes with it exactly as
//! [`crate::evaluate`] plays a policy: the same start states, the same seeds of the noise. The return is therefore
//! the host evaluation's bit for bit, however bad the line. Times are round trips as the PC sees them, the line included.

pub mod faults;
pub mod learn;
pub mod line;
pub mod watch;

use crate::evaluate::Player;
use crate::policy::ArtefactBytes;
use crate::{Error, Result};
use faults::{Faulty, Rates, Tally};
use flowlet::control::{Fault, State};
use flowlet_link::frame::{self, Counters, Header, Receiver, VERSION};
use flowlet_link::learning::Learning;
use flowlet_link::message::{self, Action, Begin, Info, Refusal, Reset, kind};
use std::time::{Duration, Instant};

/// Longest payload that a board may send.
const PAYLOAD: usize = 8192;
const FRAME: usize = frame::frame_len(PAYLOAD);

/// A board's counters are waited for at least so long before they are asked for again.
const COUNTING: Duration = Duration::from_secs(2);

/// How often a request is sent before the board is given up.
const ATTEMPTS: usize = 40;

/// What a board sent without being asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Telemetry {
    /// How learning goes.
    Learning(Learning),
    /// Anything else.
    Other {
        /// What the values are.
        channel: u8,
        /// The values.
        values: Vec<f32>,
    },
}

/// A board at the other end of a line.
pub struct Board {
    line: Faulty,
    receiver: Box<Receiver<FRAME>>,
    /// Bytes that came in and were not looked at yet.
    pending: std::collections::VecDeque<u8>,
    session: u16,
    sequence: u32,
    timeout: Duration,
    counters: Counters,
    retransmissions: u32,
    telemetry: Vec<Telemetry>,
    next_telemetry: Option<u32>,
    refusal: Option<Refusal>,
}

impl Board {
    /// Begins a conversation.
    pub fn connect(line: Faulty, timeout: Duration) -> Result<(Self, Info)> {
        // Two programs in a row must not have the same number: a frame of the first could come late.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let session = (now.subsec_nanos() ^ (now.as_secs() as u32) ^ (std::process::id() << 4)) as u16;
        let mut board = Self {
            line,
            receiver: Box::new(Receiver::new()),
            pending: Default::default(),
            session,
            sequence: 0,
            timeout,
            counters: Counters::default(),
            retransmissions: 0,
            telemetry: Vec::new(),
            next_telemetry: None,
            refusal: None,
        };
        // Whatever is left of an earlier conversation ends here.
        board.line.flush_with_delimiter()?;
        let info = board.ask(kind::HELLO, &[])?;
        let info = Info::read(&info).ok_or_else(garbled)?;
        Ok((board, info))
    }

    /// Sends a request until it is answered; the answer's payload.
    pub fn ask(&mut self, kind: u8, payload: &[u8]) -> Result<Vec<u8>> {
        self.sequence = self.sequence.wrapping_add(1);
        let header = Header::new(kind, self.session, self.sequence);
        let mut wire = vec![0; frame::wire_len(payload.len())];
        let length = frame::encode(header, payload, &mut wire).unwrap_or(0);
        wire.truncate(length);
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                self.retransmissions += 1;
                self.line.flush_with_delimiter()?;
            }
            self.line.send(&wire)?;
            let deadline = Instant::now() + self.timeout;
            loop {
                if let Some(answer) = self.take(header)? {
                    return Ok(answer);
                }
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                self.line.receive(left, &mut self.pending)?;
            }
        }
        Err(Error::failure(format!(
            "{} does not answer: check that the firmware `hil` runs there, the wires and the baud rate",
            self.line.name()
        )))
    }

    /// The answer to `asked` among the bytes that came in.
    fn take(&mut self, asked: Header) -> Result<Option<Vec<u8>>> {
        while let Some(byte) = self.pending.pop_front() {
            let Some((header, payload)) = self.receiver.push(byte) else { continue };
            let ours = header.session == self.session;
            if ours && header.kind == kind::TELEMETRY {
                if let Some((channel, values)) = message::telemetry(payload) {
                    let expected = self.next_telemetry.unwrap_or(header.sequence);
                    self.counters.lost += header.sequence.wrapping_sub(expected).min(u32::MAX / 2);
                    self.next_telemetry = Some(header.sequence.wrapping_add(1));
                    let other = || Telemetry::Other { channel, values: values.collect() };
                    self.telemetry.push(Learning::read(payload).map_or_else(other, Telemetry::Learning));
                }
            } else if !ours || header.sequence != asked.sequence {
                // An answer that was asked for again comes twice; any other is older.
                let before = asked.sequence.wrapping_sub(1);
                let count = if ours && header.sequence == before {
                    &mut self.counters.repeated
                } else {
                    &mut self.counters.stale
                };
                *count += 1;
            } else if header.version != VERSION {
                return Err(Error::failure(format!(
                    "the board speaks version {} of the protocol and this program version {VERSION}: flash the firmware \
                     of this release",
                    header.version
                )));
            } else if header.kind == kind::ERROR {
                let (code, sentence) = payload.split_first().ok_or_else(garbled)?;
                let sentence = String::from_utf8_lossy(sentence);
                let reason = Refusal::from_code(*code).map_or(format!("error {code}"), |reason| reason.to_string());
                self.counters.refused += 1;
                self.refusal = Refusal::from_code(*code);
                return Err(Error::failure(if sentence == reason.as_str() {
                    format!("the board says: {reason}")
                } else {
                    format!("the board says: {reason}: {sentence}")
                }));
            } else if header.kind == asked.kind | kind::ANSWER {
                return Ok(Some(payload.to_vec()));
            } else {
                return Err(garbled());
            }
        }
        Ok(None)
    }

    /// Puts an artefact on the board, which checks it; what decides there afterwards.
    pub fn upload(&mut self, bytes: &[u8], info: &Info) -> Result<Info> {
        let length = u32::try_from(bytes.len()).map_err(|_| Error::usage("the policy is larger than any board"))?;
        self.ask(kind::BEGIN, &Begin { length, crc: frame::crc32(bytes) }.bytes())?;
        let room = usize::from(info.payload).clamp(5, PAYLOAD) - 4;
        for (i, piece) in bytes.chunks(room).enumerate() {
            self.ask(kind::CHUNK, &[&((i * room) as u32).to_le_bytes()[..], piece].concat())?;
        }
        let info = self.ask(kind::COMMIT, &[])?;
        Info::read(&info).ok_or_else(garbled)
    }

    /// Reads the artefact that decides on the board.
    pub fn read_back(&mut self, info: &Info) -> Result<ArtefactBytes> {
        let bytes = self.read(kind::READ, info.length, info)?;
        if frame::crc32(&bytes) != info.crc {
            return Err(Error::failure("the policy changed on the board while it was read: try again"));
        }
        Ok(ArtefactBytes::new(&bytes))
    }

    /// Reads so many bytes, of what such a request reads.
    fn read(&mut self, kind: u8, length: u32, info: &Info) -> Result<Vec<u8>> {
        // It grows with what arrives: the length is what a board says, which may be anything.
        let mut bytes = Vec::new();
        while bytes.len() < length as usize {
            let offset = bytes.len() as u32;
            let asked = [&offset.to_le_bytes()[..], &info.payload.to_le_bytes()].concat();
            let answer = self.ask(kind, &asked)?;
            match message::piece(&answer) {
                Some((at, piece)) if at == offset && !piece.is_empty() => bytes.extend(piece),
                _ => return Err(garbled()),
            }
        }
        Ok(bytes)
    }

    /// What the board counted since it was switched on.
    pub fn board_counters(&mut self) -> Result<Counters> {
        // Asked for again on a busy machine, a count and the frames that were sent would differ by the asking.
        let timeout = self.timeout;
        self.timeout = timeout.max(COUNTING);
        let answer = self.ask(kind::COUNT, &[]);
        self.timeout = timeout;
        let answer = answer?;
        message::read_counters(&answer).ok_or_else(garbled)
    }

    /// What was counted here.
    pub fn counters(&self) -> Counters {
        let Counters { repeated, lost, stale, refused, .. } = self.counters;
        Counters { repeated, lost, stale, refused, ..self.receiver.counters }
    }

    /// Why the board refused the last of the requests that it refused.
    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// Requests that were sent again.
    pub fn retransmissions(&self) -> u32 {
        self.retransmissions
    }

    /// Makes the line a bad one, for tests.
    pub fn spoil(&mut self, rates: Rates, seed: u64) {
        self.line.spoil(rates, seed);
    }

    /// Makes the line a good one again; what the faults held back arrives.
    pub fn mend(&mut self) -> Result<()> {
        self.line.mend(&mut self.pending)
    }

    /// What befell the frames to and from the board since [`spoil`](Self::spoil).
    pub fn tallies(&self) -> (Tally, Tally) {
        self.line.tallies()
    }

    /// What came unasked since the last call.
    pub fn take_telemetry(&mut self) -> Vec<Telemetry> {
        std::mem::take(&mut self.telemetry)
    }
}

fn garbled() -> Error {
    Error::failure("the board's answer has the wrong form: flash the firmware of this release")
}

/// Plays episodes by asking a board.
pub struct BoardPlayer<'b> {
    board: &'b mut Board,
    /// Beside the seed, which the episode gives.
    reset: Reset,
    /// The episode that was announced and not yet begun on the board.
    announced: Option<u64>,
    round_trips: Vec<Duration>,
    ticks: Vec<u32>,
    fallbacks: u32,
    fault: Fault,
    heard: Box<dyn FnMut(Telemetry) -> Result<()> + 'b>,
}

impl<'b> BoardPlayer<'b> {
    /// Episodes begin as `reset` says, but for the seed; `heard` gets the telemetry.
    pub fn new(board: &'b mut Board, reset: Reset, heard: impl FnMut(Telemetry) -> Result<()> + 'b) -> Self {
        let heard = Box::new(heard);
        Self {
            board,
            reset,
            announced: None,
            round_trips: Vec::new(),
            ticks: Vec::new(),
            fallbacks: 0,
            fault: Fault::NONE,
            heard,
        }
    }

    /// Time from each observation to its action.
    pub fn round_trips(&self) -> &[Duration] {
        &self.round_trips
    }

    /// Ticks that each decision took on the board.
    pub fn ticks(&self) -> &[u32] {
        &self.ticks
    }

    /// Answers that were not the policy's.
    pub fn fallbacks(&self) -> u32 {
        self.fallbacks
    }

    /// Why the last of them was not.
    pub fn fault(&self) -> Fault {
        self.fault
    }
}

impl Player for BoardPlayer<'_> {
    fn is_critical(&self) -> bool {
        false
    }

    fn begin(&mut self, number: u64) {
        self.announced = Some(number);
    }

    fn act(&mut self, observation: &[f32], best_of: Option<usize>, action: &mut [f32]) -> Result<()> {
        if best_of.is_some() {
            return Err(Error::failure("a board decides by plain samples"));
        }
        if let Some(seed) = self.announced {
            self.board.ask(kind::RESET, &Reset { seed, ..self.reset }.bytes())?;
            self.announced = None;
        }
        let payload: Vec<u8> = observation.iter().flat_map(|x| x.to_le_bytes()).collect();
        let asked = Instant::now();
        let answer = self.board.ask(kind::OBSERVATION, &payload)?;
        self.round_trips.push(asked.elapsed());
        let answer =
            Action::read(&answer).filter(|answer| answer.values().len() == action.len()).ok_or_else(garbled)?;
        action.iter_mut().zip(answer.values()).for_each(|(place, value)| *place = value);
        self.ticks.push(answer.ticks);
        if answer.status.state != State::Running {
            self.fallbacks += 1;
            self.fault = answer.status.fault;
        }
        self.board.take_telemetry().into_iter().try_for_each(&mut self.heard)
    }
}
