//! Learning on the board: a session on the artefact that decides, in the room for uploads.
//!
//! Rewards and metrics come with the samples, control step by control step, since the plant is the PC's. Updates are done in
//! slices while no byte comes, and what is left of one before the next decision, so what is learned depends on the
//! requests alone. No panics, no allocation. Nothing here is inlined: a board that does not learn spends no stack on it.

use super::talk::Failure;
use crate::frame::crc32;
use crate::learning::{End, Learn, Learning, Sample};
use crate::message::{Builder, Refusal};
use flowlet::control::{State, Status};
use flowlet::finetune::guard::{Passage, Player};
use flowlet::finetune::session::Session;
use flowlet::finetune::{Learner, LearnerError, words};
use flowlet::policy::{Policy, PolicyError, PolicyScratch};
use rand_xoshiro::Xoshiro128PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;
use zerocopy::{FromBytes, IntoBytes};

/// Words that learning takes.
#[derive(Clone, Copy)]
pub(super) struct Room {
    /// The learner's.
    words: usize,
    /// Those of what is taken down.
    params: usize,
}

impl Room {
    /// What a policy needs, if it can be learned from with these constants.
    pub(super) fn of(policy: &Policy<'_>, learn: &Learn) -> Result<Self, Failure> {
        let artefact = policy.artefact();
        let velocity = artefact.velocity().as_f32().ok_or(Failure::Learner(LearnerError::NumberFormat))?;
        let critic = artefact.critics().next().ok_or(Failure::Learner(LearnerError::Critics))?;
        learn.learner.check().map_err(Failure::Learner)?;
        let words = words(velocity.shape(), critic.shape(), &learn.learner);
        Ok(Self { words, params: velocity.params().len() })
    }

    /// Whether so many words are enough.
    pub(super) fn check(&self, found: usize) -> Result<(), Failure> {
        if found < self.words.saturating_add(self.params) { Err(self.missing(found)) } else { Ok(()) }
    }

    fn missing(&self, found: usize) -> Failure {
        Failure::Learner(LearnerError::Memory { expected: self.words.saturating_add(self.params), found })
    }
}

/// A session, its noise, and what was taken down of it.
pub(super) struct Pupil<'a> {
    session: Session<'a, &'a mut [u32]>,
    noise: Xoshiro128PlusPlus,
    learn: Learn,
    decisions: u32,
    /// How the last decision's action reached the plant.
    passage: Passage,
    /// Bytes of the learner's memory, and words of the room.
    ram: u32,
    room: usize,
    /// The parameters of a policy, and whether they are there.
    taken: &'a mut [f32],
    is_taken: bool,
}

impl<'a> Pupil<'a> {
    /// Begins to learn in `room`.
    #[inline(never)]
    pub(super) fn new(policy: &Policy<'a>, learn: Learn, room: &'a mut [u32]) -> Result<Self, Failure> {
        let artefact = policy.artefact();
        let found = room.len();
        let needed = Room::of(policy, &learn)?;
        needed.check(found)?;
        let (memory, rest) = room.split_at_mut_checked(needed.words).ok_or_else(|| needed.missing(found))?;
        let taken = rest.get_mut(..needed.params).map(IntoBytes::as_mut_bytes).map(<[f32]>::mut_from_bytes);
        let Some(Ok(taken)) = taken else { return Err(needed.missing(found)) };
        let learner = Learner::new(artefact, learn.learner, learn.seed, memory).map_err(Failure::Learner)?;
        let session = Session::new(learner, learn.session, learn.seed).map_err(Failure::Session)?;
        Ok(Self {
            session,
            noise: Xoshiro128PlusPlus::seed_from_u64(learn.noise),
            learn,
            decisions: 0,
            passage: Passage::Rest,
            ram: 4 * needed.words as u32,
            room: found,
            taken,
            is_taken: false,
        })
    }

    /// The answer to the request: bytes of the learner's memory, parameters of the policy.
    pub(super) fn begun(&self, out: &mut [u8]) -> Option<usize> {
        Builder::new(out).bytes(&self.ram.to_le_bytes()).bytes(&(self.taken.len() as u32).to_le_bytes()).finish()
    }

    /// Words of the room that it has.
    pub(super) fn room(&self) -> usize {
        self.room
    }

    /// A piece of an update; `false` when there is none to do.
    #[inline(never)]
    pub(super) fn slice(&mut self) -> bool {
        self.session.slice()
    }

    /// Takes in what the last decision led to.
    #[inline(never)]
    pub(super) fn learn(&mut self, sample: &Sample<'_>, action: &[f32]) {
        for (reward, metric) in sample.steps() {
            let _ = self.session.after(self.passage, action, reward, metric);
        }
        if sample.end == End::Terminated {
            let _ = self.session.terminated();
        }
        if sample.end != End::GoesOn {
            self.cut();
        }
    }

    /// What is next does not follow from what was; nothing is kept over a reset of a board in the loop.
    pub(super) fn cut(&mut self) {
        self.session.cut();
        self.session.go_on_unsaved();
        self.passage = Passage::Rest;
    }

    /// Decides by the weights whose turn it is.
    #[inline(never)]
    pub(super) fn decide(
        &mut self,
        policy: &Policy<'_>,
        observation: &[f32],
        memory: &mut PolicyScratch<'_>,
        action: &mut [f32],
    ) -> Result<(), PolicyError> {
        self.session.finish();
        let factory = |rng: &mut Xoshiro128PlusPlus, action: &mut [f32]| policy.act(observation, rng, memory, action);
        let decided = self.session.decide(observation, &mut self.noise, action, factory);
        self.decisions = self.decisions.wrapping_add(1);
        decided
    }

    /// What became of the decision.
    pub(super) fn done(&mut self, status: &Status) {
        self.passage = match status.state {
            State::Running | State::Holding => Passage::Free,
            State::Fault | State::Stopped => Passage::Fault,
            State::Idle => Passage::Rest,
        };
    }

    /// The telemetry frame, where one is due: after so many decisions, and at the end of an episode.
    #[inline(never)]
    pub(super) fn telemetry(&self, is_end: bool) -> Option<Learning> {
        let every = self.learn.telemetry;
        let due = every != 0 && (is_end || self.decisions.is_multiple_of(every));
        due.then(|| Learning { decisions: self.decisions, session: self.session.report() })
    }

    /// Takes down the parameters of those whom `payload` names; answers by their length and CRC.
    #[inline(never)]
    pub(super) fn snapshot(&mut self, payload: &[u8], out: &mut [u8]) -> Result<usize, Failure> {
        let learner = self.session.learner();
        match payload {
            [who] if *who == Player::Incumbent as u8 => learner.merge(self.taken),
            [who] if *who == Player::Candidate as u8 => learner.merge_candidate(self.taken),
            _ => return Err(Failure::Plain(Refusal::Length)),
        }
        self.is_taken = true;
        let bytes = self.taken.as_bytes();
        let answer = Builder::new(out).bytes(&(bytes.len() as u32).to_le_bytes()).bytes(&crc32(bytes).to_le_bytes());
        answer.finish().ok_or(Failure::Plain(Refusal::Room))
    }

    /// What was taken down.
    pub(super) fn taken(&self) -> Option<&[u8]> {
        self.is_taken.then(|| self.taken.as_bytes())
    }
}
