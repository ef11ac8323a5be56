//! Learning on a board, the PC's side: the plant's samples go to the board, which decides and learns.
//!
//! [`BoardPupil`] is to [`live`](crate::finetune::live::live) what a session on this computer is, so both live the same life and
//! must learn the same bits. What was learned is read back in chunks with a CRC, while the board is at rest. Errors are one
//! sentence. No panics.

use super::{Board, Telemetry, garbled};
use crate::finetune::Options;
use crate::finetune::live::{Pupil, noise_seed};
use crate::{Error, Result};
use flowlet::control::State;
use flowlet::finetune::Config;
use flowlet::finetune::guard::Player;
use flowlet_link::frame;
use flowlet_link::learning::{End, Learn};
use flowlet_link::message::{Action, Info, Refusal, Reset, kind};
use std::time::{Duration, Instant};

/// A board that learns.
pub struct BoardPupil<'b> {
    board: &'b mut Board,
    info: Info,
    /// Bytes of RAM that the learner takes on the board.
    pub ram_bytes: u32,
    /// Parameters of the policy.
    params: u32,
    reset: Reset,
    is_under_way: bool,
    /// The control steps that the board was not told of yet.
    steps: Vec<(f32, f32)>,
    /// Time from each observation to its action.
    pub round_trips: Vec<Duration>,
    /// Ticks that each decision took on the board.
    pub ticks: Vec<u32>,
    heard: Box<dyn FnMut(Telemetry) -> Result<()> + 'b>,
}

impl<'b> BoardPupil<'b> {
    /// Has the board learn from the artefact that decides there, and tell of it every `telemetry` decisions; `heard` gets what
    /// it tells. Episodes begin as `reset` says.
    pub fn new(
        board: &'b mut Board,
        info: Info,
        (config, options): (Config, &Options),
        (reset, telemetry): (Reset, u32),
        heard: impl FnMut(Telemetry) -> Result<()> + 'b,
    ) -> Result<Self> {
        if usize::from(info.payload) < Learn::LENGTH {
            return Err(Error::failure(format!(
                "the board takes {} bytes at once and learning needs {}: give its frames more room",
                info.payload,
                Learn::LENGTH
            )));
        }
        let (seed, noise) = (options.seed, noise_seed(options.seed));
        let learn = Learn { seed, noise, telemetry, learner: config, session: options.session };
        let answer = board.ask(kind::LEARN, &learn.bytes()).map_err(|error| match board.refusal() {
            Some(Refusal::Kind) => {
                Error::failure("the board's firmware does not learn: flash the `hil` of this release")
            }
            _ => error,
        })?;
        let [ram_bytes, params] = words(&answer)?;
        Ok(Self {
            board,
            info,
            ram_bytes,
            params,
            reset,
            is_under_way: false,
            steps: Vec::new(),
            round_trips: Vec::new(),
            ticks: Vec::new(),
            heard: Box::new(heard),
        })
    }

    /// The parameters of the policy that the guard has deployed, or of the learner's candidate; between episodes.
    pub fn read_back(&mut self, whose: Player) -> Result<Vec<f32>> {
        let answer = self.ask(kind::SNAPSHOT, &[whose as u8])?;
        let [length, crc] = words(&answer)?;
        if u64::from(length) != 4 * u64::from(self.params) {
            return Err(garbled());
        }
        let bytes = self.board.read(kind::PARAMETERS, length, &self.info)?;
        if frame::crc32(&bytes) != crc || bytes.len() as u64 != u64::from(length) {
            return Err(Error::failure("what was learned arrived damaged: read it back again"));
        }
        Ok(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
    }

    /// Sends a sample; the decision's answer.
    fn sample(&mut self, end: End, observation: &[f32]) -> Result<Vec<u8>> {
        let steps = u8::try_from(self.steps.len()).map_err(|_| {
            Error::usage(
                "a decision of more than 255 control steps does not fit a frame: choose a shorter action repeat",
            )
        })?;
        let mut payload = vec![end as u8, steps, 0, 0];
        payload.extend(self.steps.drain(..).flat_map(|(r, m)| [r.to_le_bytes(), m.to_le_bytes()]).flatten());
        payload.extend(observation.iter().flat_map(|o| o.to_le_bytes()));
        if payload.len() > usize::from(self.info.payload) {
            return Err(Error::failure(format!(
                "a sample has {} bytes and the board takes {}: give its frames more room, or decide more often",
                payload.len(),
                self.info.payload
            )));
        }
        self.ask(kind::SAMPLE, &payload)
    }

    /// Asks, and passes on what the board told before its answer.
    fn ask(&mut self, kind: u8, payload: &[u8]) -> Result<Vec<u8>> {
        let answer = self.board.ask(kind, payload)?;
        self.board.take_telemetry().into_iter().try_for_each(&mut self.heard)?;
        Ok(answer)
    }
}

impl Pupil for BoardPupil<'_> {
    fn decide(&mut self, observation: &[f32], action: &mut [f32]) -> Result<()> {
        if !self.is_under_way {
            self.ask(kind::RESET, &self.reset.bytes())?;
            self.is_under_way = true;
        }
        let asked = Instant::now();
        let answer = self.sample(End::GoesOn, observation)?;
        self.round_trips.push(asked.elapsed());
        let answer =
            Action::read(&answer).filter(|answer| answer.values().len() == action.len()).ok_or_else(garbled)?;
        if answer.status.state != State::Running {
            return Err(Error::failure(format!("the board stopped driving while it learned: {}", answer.status.fault)));
        }
        action.iter_mut().zip(answer.values()).for_each(|(place, value)| *place = value);
        self.ticks.push(answer.ticks);
        Ok(())
    }

    fn after(&mut self, _: &[f32], steps: &[(f32, f32)], end: End) -> Result<()> {
        self.steps.extend_from_slice(steps);
        if end != End::GoesOn {
            self.sample(end, &[])?;
            self.is_under_way = false;
        }
        Ok(())
    }
}

/// The two words of an answer.
fn words(answer: &[u8]) -> Result<[u32; 2]> {
    match answer.as_chunks::<4>() {
        ([a, b], []) => Ok([u32::from_le_bytes(*a), u32::from_le_bytes(*b)]),
        _ => Err(garbled()),
    }
}
