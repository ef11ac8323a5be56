//! The guard in bytes: its whole state for the journal, and a report for whoever watches.
//!
//! What is restored goes on bit for bit. Bytes that no guard writes are refused; single flipped bits inside a number are
//! for the journal's checksum to find. Little-endian. No panics, no allocation.

use super::bets::Bets;
use super::{Config, Guard, GuardError, ORDERS, Phase, Player, Verdict};
use crate::math::Digest;
use rand_core::SeedableRng;
use rand_xoshiro::SplitMix64;

/// Version of [`Guard::to_bytes`].
const VERSION: u8 = 1;

/// Writes and reads fields in the same order; out of bytes it writes nothing and reads zeros, which the sizes exclude.
struct Cursor<B> {
    bytes: B,
    at: usize,
}

impl Cursor<[u8; Guard::BYTES]> {
    fn put<const N: usize>(&mut self, field: [u8; N]) {
        if let Some(place) = self.bytes.get_mut(self.at..self.at + N) {
            place.copy_from_slice(&field);
        }
        self.at += N;
    }
}

impl Cursor<&[u8; Guard::BYTES]> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut field = [0; N];
        if let Some(place) = self.bytes.get(self.at..self.at + N) {
            field.copy_from_slice(place);
        }
        self.at += N;
        field
    }

    fn float(&mut self) -> f32 {
        f32::from_le_bytes(self.take())
    }

    fn half(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    fn bets(&mut self) -> Option<Bets> {
        let mut wealth = [0.0; Bets::LEN];
        wealth.iter_mut().for_each(|w| *w = self.float());
        Bets::of(wealth)
    }
}

impl Guard {
    /// Bytes of the state: codes and flags, the configuration's digest, generator, block, means, counts, bets.
    pub const BYTES: usize = 8 + 8 + 8 + 8 + 12 + 12 + 4 * 4 * Bets::LEN;

    /// The state, between any two steps.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut out = Cursor { bytes: [0; Self::BYTES], at: 0 };
        let flags = u8::from(self.promoted) | u8::from(self.auditing) << 1 | u8::from(self.down) << 2;
        let [phase, verdict, before] = [self.phase as u8, self.verdict as u8, self.before as u8];
        out.put([VERSION, phase, verdict, flags, self.order, self.slot, before, 0]);
        out.put(digest(&self.config).to_le_bytes());
        out.put(self.orders.state());
        out.put(self.steps.to_le_bytes());
        out.put(self.sum.to_le_bytes());
        self.means.iter().for_each(|mean| out.put(mean.to_le_bytes()));
        for count in [self.observed, self.rounds, self.candidates, self.promotions, self.odd, self.faults] {
            out.put(count.to_le_bytes());
        }
        for bets in [&self.over_factory, &self.over_incumbent, &self.harm, &self.watch] {
            bets.wealth().iter().for_each(|wealth| out.put(wealth.to_le_bytes()));
        }
        out.bytes
    }

    /// The guard that wrote `bytes`, with the configuration it had.
    ///
    /// A trial goes on where it was. It may, if whatever cut it off had nothing to do with who played, as a switch has; where
    /// it may have (a watchdog, a voltage that broke down), or where the candidate's weights are lost, [`Guard::abandon`]
    /// the candidate. Without the incumbent's weights, [`Guard::revert`].
    pub fn from_bytes(config: Config, bytes: &[u8; Self::BYTES]) -> Result<Self, GuardError> {
        let mut guard = Self::new(config, 0)?;
        let mut input = Cursor { bytes, at: 0 };
        let [version, phase, verdict, flags, order, slot, before, reserved] = input.take();
        if version != VERSION {
            return Err(GuardError::Version { version });
        }
        if u64::from_le_bytes(input.take()) != digest(&config) {
            return Err(GuardError::OtherConfig);
        }
        guard.orders = SplitMix64::from_seed(input.take());
        guard.phase = Phase::of(phase).ok_or(GuardError::Corrupt)?;
        guard.verdict = Verdict::of(verdict).ok_or(GuardError::Corrupt)?;
        guard.before = Player::of(before).ok_or(GuardError::Corrupt)?;
        [guard.promoted, guard.auditing, guard.down] = [flags & 1 != 0, flags & 2 != 0, flags & 4 != 0];
        (guard.order, guard.slot) = (order, slot);
        guard.steps = u32::from_le_bytes(input.take());
        guard.sum = input.float();
        guard.means.iter_mut().for_each(|mean| *mean = input.float());
        for count in [
            &mut guard.observed,
            &mut guard.rounds,
            &mut guard.candidates,
            &mut guard.promotions,
            &mut guard.odd,
            &mut guard.faults,
        ] {
            *count = input.half();
        }
        for bets in [&mut guard.over_factory, &mut guard.over_incumbent, &mut guard.harm, &mut guard.watch] {
            *bets = input.bets().ok_or(GuardError::Corrupt)?;
        }
        if flags > 7 || reserved != 0 || !guard.is_lawful() { Err(GuardError::Corrupt) } else { Ok(guard) }
    }

    /// Whether the steps of some guard lead here, as far as single fields can tell.
    fn is_lawful(&self) -> bool {
        let played = self.steps.saturating_sub(u32::from(self.config.settle));
        let measured = (0.0..=played as f32).contains(&self.sum) && self.steps < self.block_steps();
        let means = self.means.iter().all(|mean| (0.0..=1.0).contains(mean));
        let trial = self.phase == Phase::Trial;
        let round = self.slot <= 3
            && match self.turn() {
                Some(player) => !self.in_round() || self.plays(player),
                None => usize::from(self.order) < ORDERS.len() && !self.in_round(),
            };
        let audit = !self.auditing || (self.promoted && matches!(self.phase, Phase::Observing | Phase::RolledBack));
        let counts = (!trial || (self.candidates > 0 && self.rounds < self.config.rounds))
            && self.promotions <= self.candidates
            && (!self.promoted || self.promotions > 0);
        let verdict = match self.phase {
            Phase::Trial => self.verdict == Verdict::None,
            Phase::Promoted => self.verdict == Verdict::Better,
            Phase::Observing => matches!(self.verdict, Verdict::None | Verdict::Better),
            Phase::RolledBack => !matches!(self.verdict, Verdict::None | Verdict::Better),
        };
        measured && means && round && audit && counts && verdict
    }

    /// What to send to whoever watches.
    pub fn report(&self) -> Report {
        let [factory, incumbent, candidate] = self.means;
        Report {
            phase: self.phase,
            verdict: self.verdict,
            player: self.player(),
            deployed: self.deployed(),
            candidates: self.candidates,
            round: self.rounds,
            over_factory: exponent(self.over_factory.evidence()),
            over_incumbent: exponent(self.over_incumbent.evidence()),
            needed: exponent(self.spending() / self.config.alpha),
            harm: exponent(self.harm.evidence()),
            means: [factory, incumbent, candidate].map(|mean| (mean * 255.0 + 0.5) as u8),
            odd: self.odd.min(255) as u8,
        }
    }
}

/// The power of two at or below `x`; -127 for zero.
fn exponent(x: f32) -> i8 {
    ((x.to_bits() >> 23 & 255) as i32 - 127).clamp(-127, 127) as i8
}

/// What two guards must have in common to understand each other's state.
fn digest(config: &Config) -> u64 {
    let Config { block, settle, rounds, alpha, beta, margin, correction, audit, watch } = *config;
    let [block, settle, rounds, audit, watch] = [block, settle, rounds, audit, watch].map(f32::from);
    Digest::of(&[block, settle, rounds, alpha, beta, margin, correction, audit, watch])
}

impl Player {
    fn of(code: u8) -> Option<Self> {
        [Self::Factory, Self::Incumbent, Self::Candidate].into_iter().find(|known| *known as u8 == code)
    }
}

impl Phase {
    fn of(code: u8) -> Option<Self> {
        [Self::Observing, Self::Trial, Self::Promoted, Self::RolledBack].into_iter().find(|known| *known as u8 == code)
    }
}

impl Verdict {
    /// All verdicts, in the order of their numbers.
    pub const ALL: [Self; 7] =
        [Self::None, Self::Better, Self::Worse, Self::Undecided, Self::Fault, Self::Abandoned, Self::Outdated];

    fn of(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|known| *known as u8 == code)
    }
}

/// What the guard tells, in sixteen bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Report {
    /// Where the guard is.
    pub phase: Phase,
    /// How the last trial ended.
    pub verdict: Verdict,
    /// Who plays.
    pub player: Player,
    /// Whose weights are kept.
    pub deployed: Player,
    /// Candidates so far.
    pub candidates: u16,
    /// Rounds of the trial.
    pub round: u16,
    /// Binary logarithm, rounded down, of the evidence that the candidate is better than the factory's weights.
    pub over_factory: i8,
    /// And than the incumbent's; with no incumbent, the same.
    pub over_incumbent: i8,
    /// And of the evidence that both need.
    pub needed: i8,
    /// And of the evidence that the candidate is worse than the incumbent.
    pub harm: i8,
    /// Mean metric of the last block of factory, incumbent and candidate; 255 is 1.
    pub means: [u8; 3],
    /// Metrics outside `[0, 1]`, up to 255.
    pub odd: u8,
}

impl Report {
    /// The fields in their order, little-endian.
    pub fn to_bytes(&self) -> [u8; 16] {
        let [c0, c1] = self.candidates.to_le_bytes();
        let [r0, r1] = self.round.to_le_bytes();
        let [factory, incumbent, candidate] = self.means;
        let [a, b, c, d] = [self.over_factory, self.over_incumbent, self.needed, self.harm].map(|e| e as u8);
        let [phase, verdict] = [self.phase as u8, self.verdict as u8];
        let [player, deployed] = [self.player as u8, self.deployed as u8];
        [phase, verdict, player, deployed, c0, c1, r0, r1, a, b, c, d, factory, incumbent, candidate, self.odd]
    }

    /// The report of these bytes; `None` where a code is unknown.
    pub fn from_bytes(bytes: &[u8; 16]) -> Option<Self> {
        let [phase, verdict, player, deployed, c0, c1, r0, r1, a, b, c, d, factory, incumbent, candidate, odd] = *bytes;
        Some(Self {
            phase: Phase::of(phase)?,
            verdict: Verdict::of(verdict)?,
            player: Player::of(player)?,
            deployed: Player::of(deployed)?,
            candidates: u16::from_le_bytes([c0, c1]),
            round: u16::from_le_bytes([r0, r1]),
            over_factory: a as i8,
            over_incumbent: b as i8,
            needed: c as i8,
            harm: d as i8,
            means: [factory, incumbent, candidate],
            odd,
        })
    }
}
