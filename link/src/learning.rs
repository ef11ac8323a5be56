//! What frames of learning carry: how to learn, what a decision led to, how it goes.
//!
//! `docs/protocol.md` lays the payloads down. Every number is little-endian and every `f32` is carried by its bits; a payload
//! of another length, or with a code that is unknown, is `None`. No panics, no allocation.

use crate::message::{Builder, Fields, TELEMETRY_LEARNING};
use flowlet::finetune::guard::{self, Player};
use flowlet::finetune::session::{self, Stage};
use flowlet::finetune::{self, Optimiser, Storage, Trained};

/// A request to learn: everything random, and every constant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Learn {
    /// Seed of the learner and of the guard's orders.
    pub seed: u64,
    /// Seed of the stream that all decisions draw from.
    pub noise: u64,
    /// A telemetry frame after every so many decisions and at the end of every episode; zero for none.
    pub telemetry: u32,
    /// The learner's constants.
    pub learner: finetune::Config,
    /// The session's and the guard's.
    pub session: session::Config,
}

impl Learn {
    /// Bytes of the payload.
    pub const LENGTH: usize = 152;

    /// The payload.
    pub fn bytes(&self) -> [u8; Self::LENGTH] {
        let finetune::Config {
            actor,
            critic,
            optimiser,
            transitions,
            storage,
            batch,
            actor_batch,
            candidates,
            critic_rate,
            actor_rate,
            gradient_limit,
            discount,
            target_rate,
            acting_rate,
            temperature,
            spread,
            reward_limit,
            every,
            warmup,
            exploration,
            correlation,
            stride,
            horizon,
            slice,
        } = self.learner;
        let session::Config { guard, screening, gain, slack, patience, first, refresh } = self.session;
        let guard::Config { block, settle, rounds, alpha, beta, margin, correction, audit, watch } = guard;
        // A number that does not fit becomes the largest, which every board refuses.
        let [transitions, batch, actor_batch, candidates] =
            [transitions, batch, actor_batch, candidates].map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        let mut out = [0; Self::LENGTH];
        let head = Builder::new(&mut out)
            .bytes(&self.seed.to_le_bytes())
            .bytes(&self.noise.to_le_bytes())
            .bytes(&self.telemetry.to_le_bytes())
            .bytes(&actor.code())
            .bytes(&critic.code())
            .bytes(&[optimiser as u8, storage as u8, 0, 0]);
        let counts = [transitions, batch, actor_batch, candidates, every, warmup, stride, horizon, slice];
        let head = counts.iter().fold(head, |builder, count| builder.bytes(&count.to_le_bytes()));
        let head = head.floats(&[
            critic_rate,
            actor_rate,
            gradient_limit,
            discount,
            target_rate,
            acting_rate,
            temperature,
            spread,
            reward_limit,
            exploration,
            correlation,
        ]);
        let halves = [block, settle, rounds, audit, watch, screening, patience, first, refresh, 0];
        let head = halves.iter().fold(head, |builder, half| builder.bytes(&half.to_le_bytes()));
        let _ = head.floats(&[alpha, beta, margin, correction, gain, slack]).finish();
        out
    }

    /// Reads a payload.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let mut f = Fields(payload);
        let (seed, noise, telemetry) = (f.u64()?, f.u64()?, f.u32()?);
        let (actor, critic) = (Trained::of(f.take()?)?, Trained::of(f.take()?)?);
        let [optimiser, storage, 0, 0] = f.take()? else { return None };
        let optimiser =
            [Optimiser::Momentum, Optimiser::Adam, Optimiser::Lean].into_iter().find(|o| *o as u8 == optimiser)?;
        let storage = [Storage::F32, Storage::I16].into_iter().find(|s| *s as u8 == storage)?;
        let learner = finetune::Config {
            actor,
            critic,
            optimiser,
            storage,
            transitions: f.u32()? as usize,
            batch: f.u32()? as usize,
            actor_batch: f.u32()? as usize,
            candidates: f.u32()? as usize,
            every: f.u32()?,
            warmup: f.u32()?,
            stride: f.u32()?,
            horizon: f.u32()?,
            slice: f.u32()?,
            critic_rate: f.f32()?,
            actor_rate: f.f32()?,
            gradient_limit: f.f32()?,
            discount: f.f32()?,
            target_rate: f.f32()?,
            acting_rate: f.f32()?,
            temperature: f.f32()?,
            spread: f.f32()?,
            reward_limit: f.f32()?,
            exploration: f.f32()?,
            correlation: f.f32()?,
        };
        let (block, settle, rounds, audit, watch) = (f.u16()?, f.u16()?, f.u16()?, f.u16()?, f.u16()?);
        let (screening, patience, first, refresh) = (f.u16()?, f.u16()?, f.u16()?, f.u16()?);
        let 0 = f.u16()? else { return None };
        let (alpha, beta, margin, correction) = (f.f32()?, f.f32()?, f.f32()?, f.f32()?);
        let guard = guard::Config { block, settle, rounds, alpha, beta, margin, correction, audit, watch };
        let session = session::Config { guard, screening, patience, first, refresh, gain: f.f32()?, slack: f.f32()? };
        f.end().map(|()| Self { seed, noise, telemetry, learner, session })
    }
}

/// What follows a decision's control steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum End {
    /// The next decision, by the observation that the sample carries.
    GoesOn = 0,
    /// Nothing: the episode is over for good.
    Terminated = 1,
    /// Something else: the episode was broken off, as by a time limit.
    Cut = 2,
}

/// The control steps of the last decision, each with the learner's reward and the guard's metric, and what follows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample<'p> {
    /// What follows.
    pub end: End,
    steps: &'p [u8],
    observation: &'p [u8],
}

impl<'p> Sample<'p> {
    /// Bytes before the steps.
    pub const HEAD: usize = 4;

    /// Reads a payload.
    pub fn read(payload: &'p [u8]) -> Option<Self> {
        let mut f = Fields(payload);
        let [end, steps, 0, 0] = f.take()? else { return None };
        let end = [End::GoesOn, End::Terminated, End::Cut].into_iter().find(|known| *known as u8 == end)?;
        let (steps, observation) = f.0.split_at_checked(usize::from(steps) * 8)?;
        let whole = observation.len() % 4 == 0 && (end == End::GoesOn || observation.is_empty());
        whole.then_some(Self { end, steps, observation })
    }

    /// Reward and metric of each control step.
    pub fn steps(&self) -> impl ExactSizeIterator<Item = (f32, f32)> + 'p {
        self.steps.as_chunks::<8>().0.iter().map(|[a, b, c, d, e, f, g, h]| {
            (f32::from_le_bytes([*a, *b, *c, *d]), f32::from_le_bytes([*e, *f, *g, *h]))
        })
    }

    /// The observation's bytes.
    pub fn observation(&self) -> &'p [u8] {
        self.observation
    }
}

/// How learning on the board goes: a telemetry frame of the channel [`TELEMETRY_LEARNING`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Learning {
    /// Decisions since learning began.
    pub decisions: u32,
    /// What the session reports.
    pub session: session::Report,
}

impl Learning {
    /// Bytes of the payload, the channel included.
    pub const LENGTH: usize = 73;

    /// The payload.
    pub fn bytes(&self) -> [u8; Self::LENGTH] {
        let session::Report {
            stage,
            player,
            blocks,
            block_return,
            block_metric,
            reference,
            best,
            learner: finetune::Report { td_error, value, effective },
            updates,
            late,
            resets,
            refused,
            guard,
        } = self.session;
        let mut out = [0; Self::LENGTH];
        let counts = [self.decisions, blocks, updates, late, resets, refused];
        let head = Builder::new(&mut out).bytes(&[TELEMETRY_LEARNING]);
        let _ = counts
            .iter()
            .fold(head, |builder, count| builder.bytes(&count.to_le_bytes()))
            .floats(&[block_return, block_metric, reference, best, td_error, value, effective])
            .bytes(&[stage as u8, player as u8, 0, 0])
            .bytes(&guard.to_bytes())
            .finish();
        out
    }

    /// Reads a payload.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let mut f = Fields(payload);
        if f.u8()? != TELEMETRY_LEARNING {
            return None;
        }
        let [decisions, blocks, updates, late, resets, refused] =
            [f.u32()?, f.u32()?, f.u32()?, f.u32()?, f.u32()?, f.u32()?];
        let (block_return, block_metric, reference, best) = (f.f32()?, f.f32()?, f.f32()?, f.f32()?);
        let learner = finetune::Report { td_error: f.f32()?, value: f.f32()?, effective: f.f32()? };
        let [stage, player, 0, 0] = f.take()? else { return None };
        let stages = [Stage::Work, Stage::Reference, Stage::Screening, Stage::Ready, Stage::Trial, Stage::Promoted];
        let stage = stages.into_iter().find(|known| *known as u8 == stage)?;
        let players = [Player::Factory, Player::Incumbent, Player::Candidate];
        let player = players.into_iter().find(|known| *known as u8 == player)?;
        let guard = guard::Report::from_bytes(&f.take()?)?;
        let session = session::Report {
            stage,
            player,
            blocks,
            block_return,
            block_metric,
            reference,
            best,
            learner,
            updates,
            late,
            resets,
            refused,
            guard,
        };
        f.end().map(|()| Self { decisions, session })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::telemetry;
    use flowlet::finetune::guard::{Phase, Verdict};
    use rand_xoshiro::Xoshiro128PlusPlus;
    use rand_xoshiro::rand_core::{Rng, SeedableRng};

    fn learning() -> Learning {
        let guard = guard::Report {
            phase: Phase::RolledBack,
            verdict: Verdict::Outdated,
            player: Player::Candidate,
            deployed: Player::Incumbent,
            candidates: 0x0506,
            round: 0x0708,
            over_factory: -127,
            over_incumbent: 3,
            needed: 127,
            harm: -1,
            means: [0, 128, 255],
            odd: 9,
        };
        let session = session::Report {
            stage: Stage::Screening,
            player: Player::Candidate,
            blocks: 150,
            block_return: -1.5,
            block_metric: 0.5,
            reference: 0.25,
            best: 1.0,
            learner: finetune::Report { td_error: f32::from_bits(0x7fc1_2345), value: -0.0, effective: 6.25 },
            updates: u32::MAX,
            late: 0x0102_0304,
            resets: 1,
            refused: 2,
            guard,
        };
        Learning { decisions: 90_000, session }
    }

    fn learn() -> Learn {
        let learner = finetune::Config {
            actor: Trained::LowRank(1),
            critic: Trained::Last(2),
            optimiser: Optimiser::Lean,
            transitions: 2000,
            storage: Storage::I16,
            batch: 16,
            actor_batch: 8,
            candidates: 9,
            critic_rate: 1.0,
            actor_rate: 2.0,
            gradient_limit: 3.0,
            discount: 0.5,
            target_rate: 5.0,
            acting_rate: 6.0,
            temperature: 7.0,
            spread: 8.0,
            reward_limit: 9.0,
            every: 4,
            warmup: 500,
            exploration: 10.0,
            correlation: 11.0,
            stride: 3,
            horizon: 2,
            slice: 20_000,
        };
        let guard = guard::Config {
            block: 3000,
            settle: 1,
            rounds: 2,
            alpha: 0.05,
            beta: 0.1,
            margin: 0.01,
            correction: 1.0,
            audit: 16,
            watch: 1000,
        };
        let session =
            session::Config { guard, screening: 5, gain: 0.05, slack: 0.1, patience: 6, first: 7, refresh: 8 };
        Learn { seed: 0x0123_4567_89ab_cdef, noise: u64::MAX - 1, telemetry: 100, learner, session }
    }

    #[test]
    fn the_learning_frame_has_these_bytes() {
        let bytes = learning().bytes();
        #[rustfmt::skip]
        let expected = [
            1, 0x90, 0x5f, 1, 0, 150, 0, 0, 0, 255, 255, 255, 255, 4, 3, 2, 1, 1, 0, 0, 0, 2, 0, 0, 0,
            0, 0, 0xc0, 0xbf, 0, 0, 0, 0x3f, 0, 0, 0x80, 0x3e, 0, 0, 0x80, 0x3f,
            0x45, 0x23, 0xc1, 0x7f, 0, 0, 0, 0x80, 0, 0, 0xc8, 0x40, 2, 2, 0, 0,
            3, 6, 2, 1, 6, 5, 8, 7, 0x81, 3, 127, 0xff, 0, 128, 255, 9,
        ];
        assert_eq!(bytes, expected);
        // Bits come back, those of a NaN too, and an older reader takes the frame for fields of a channel it does not know.
        let back = Learning::read(&bytes).unwrap();
        assert_eq!((back.bytes(), back.session.guard), (bytes, learning().session.guard));
        let (channel, values) = telemetry(&bytes).unwrap();
        assert_eq!((channel, values.len()), (TELEMETRY_LEARNING, 18));
    }

    #[test]
    fn a_request_to_learn_comes_back() {
        assert_eq!(Learn::read(&learn().bytes()), Some(learn()));
        for (actor, critic) in [(Trained::All, Trained::Bias), (Trained::Last(255), Trained::LowRank(0))] {
            let learner = finetune::Config { actor, critic, storage: Storage::F32, ..learn().learner };
            let other = Learn { learner, ..learn() };
            assert_eq!(Learn::read(&other.bytes()), Some(other));
        }
    }

    #[test]
    fn samples_have_a_form() {
        let floats = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let payload = [&[0, 2, 0, 0][..], &floats(&[1.0, 0.5, -2.0, f32::NAN, 7.0, 8.0, 9.0])].concat();
        let sample = Sample::read(&payload).unwrap();
        let steps: Vec<(u32, u32)> = sample.steps().map(|(r, m)| (r.to_bits(), m.to_bits())).collect();
        assert_eq!(steps, [(1.0f32, 0.5f32), (-2.0, f32::NAN)].map(|(r, m)| (r.to_bits(), m.to_bits())));
        assert_eq!((sample.end, sample.observation()), (End::GoesOn, &floats(&[7.0, 8.0, 9.0])[..]));
        // Where the episode ends there is no observation.
        assert_eq!(Sample::read(&[2, 0, 0, 0]).map(|sample| sample.end), Some(End::Cut));
        for bad in
            [&[1, 0, 0, 0, 1, 2, 3, 4][..], &[3, 0, 0, 0], &[0, 0, 1, 0], &[0, 1, 0, 0, 1, 2, 3, 4], &[0, 0, 0, 0, 1]]
        {
            assert_eq!(Sample::read(bad), None, "{bad:?}");
        }
    }

    /// Any bytes: no panic, and what is read is what would be written.
    #[test]
    fn garbage_is_refused_or_itself() {
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(57);
        let mut taken = [0; 3];
        for i in 0..200_000u32 {
            let sample = [&[0, 5, 0, 0][..], &[7; 60]].concat();
            let mut bytes = [&learning().bytes()[..], &learn().bytes(), &sample][i as usize % 3].to_vec();
            if i % 8 < 2 {
                bytes.iter_mut().for_each(|byte| *byte = rng.next_u32() as u8);
            }
            for _ in 0..rng.next_u32() % 4 {
                let at = rng.next_u32() as usize % bytes.len();
                bytes[at] = rng.next_u32() as u8 >> (rng.next_u32() % 8);
            }
            if i % 7 == 0 {
                bytes.resize(rng.next_u32() as usize % 150, 0);
            }
            if let Some(read) = Learning::read(&bytes) {
                assert_eq!(read.bytes()[..], bytes);
                taken[0] += 1;
            }
            if let Some(read) = Learn::read(&bytes) {
                assert_eq!(read.bytes()[..], bytes);
                taken[1] += 1;
            }
            if let Some(read) = Sample::read(&bytes) {
                assert_eq!(Sample::HEAD + 8 * read.steps().len() + read.observation().len(), bytes.len());
                taken[2] += 1;
            }
        }
        assert!(taken.iter().all(|taken| (100..100_000).contains(taken)), "{taken:?}");
    }
}
