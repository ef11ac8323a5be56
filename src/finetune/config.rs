//! Constants of a learner, their limits, and why there can be none.
//!
//! No panics, no allocation.

use super::optimiser::Optimiser;
use super::replay::Storage;
use super::trained::Trained;

/// Constants of a learner.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Config {
    /// What of the actor is trained.
    pub actor: Trained,
    /// What of the critics is trained.
    pub critic: Trained,
    /// Of all networks.
    pub optimiser: Optimiser,
    /// Entries of the replay ring.
    pub transitions: usize,
    /// How the ring keeps numbers.
    pub storage: Storage,
    /// Rows of the critics' batch.
    pub batch: usize,
    /// Rows of the actor's, at most as many.
    pub actor_batch: usize,
    /// Candidates for an action, 2 to 32.
    pub candidates: usize,
    /// Learning rate of the critics.
    pub critic_rate: f32,
    /// Learning rate of the actor.
    pub actor_rate: f32,
    /// Largest norm of a gradient.
    pub gradient_limit: f32,
    /// Discount of a decision.
    pub discount: f32,
    /// Share of the slow critics' step towards the fast.
    pub target_rate: f32,
    /// Share of the acting delta's step towards the learning one.
    pub acting_rate: f32,
    /// Temperature of the target policy, in units of value.
    pub temperature: f32,
    /// Standard deviation of candidates about the policy's own action, in `[-1, 1]` units.
    pub spread: f32,
    /// Largest magnitude of a reward.
    pub reward_limit: f32,
    /// Decisions from one update to the next.
    pub every: u32,
    /// Updates of the critics before the actor's first.
    pub warmup: u32,
    /// Standard deviation of the noise on a learner's action, in `[-1, 1]` units.
    pub exploration: f32,
    /// How much of that noise stays from one decision to the next, 0 to below 1: what is new is scaled so that the deviation
    /// stays.
    pub correlation: f32,
    /// Decisions that an entry of the replay ring stands for, of which it has the first and the sum of the rewards.
    pub stride: u32,
    /// Entries that a temporal-difference target looks ahead, where as many follow one another.
    pub horizon: u32,
    /// The most that a slice of an update takes, in instructions of a Cortex-M4F; at least [`least_slice`](super::least_slice).
    pub slice: u32,
}

/// Why there can be no learner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum LearnerError {
    /// The policy is not in f32.
    NumberFormat,
    /// The artefact has no two critics.
    Critics,
    /// The network's hidden layers are joined residually.
    Trunk,
    /// The policy takes several steps, or noise that is not Gaussian.
    Steps,
    /// A constant of the configuration is out of range.
    Config(&'static str),
    /// A slice is shorter than the largest piece that nothing cuts.
    Slice {
        /// Instructions that it takes.
        least: u32,
        /// Instructions of a slice.
        found: u32,
    },
    /// The memory is shorter than these sizes need.
    Memory {
        /// Words needed.
        expected: usize,
        /// Words there are.
        found: usize,
    },
}

impl Config {
    /// Adam and 2,000 transitions, deltas of low rank, for rewards of a decision up to 1.
    pub const ADAM: Self = Self {
        actor: Trained::LowRank(1),
        critic: Trained::LowRank(4),
        optimiser: Optimiser::Adam,
        transitions: 2000,
        storage: Storage::I16,
        batch: 16,
        actor_batch: 4,
        candidates: 8,
        critic_rate: 2e-3,
        actor_rate: 1e-3,
        gradient_limit: 10.0,
        discount: 0.99,
        target_rate: 0.015,
        acting_rate: 0.015,
        temperature: 0.1,
        spread: 0.3,
        reward_limit: 1.0,
        every: 4,
        warmup: 500,
        exploration: 0.2,
        correlation: 0.8,
        stride: 4,
        horizon: 5,
        slice: 20_000,
    };

    /// With moments of 16 bits and 500 transitions.
    pub const LEAN: Self =
        Self { optimiser: Optimiser::Lean, transitions: 500, critic: Trained::LowRank(3), ..Self::ADAM };

    /// Every layer: for chips with more RAM.
    pub const ALL: Self = Self { actor: Trained::All, critic: Trained::All, ..Self::ADAM };

    /// The last layers alone, to compare with.
    pub const LAST: Self = Self { actor: Trained::Last(1), critic: Trained::Last(1), ..Self::ADAM };

    /// All of these, by name.
    pub const MODES: [(&str, Self); 4] =
        [("adam", Self::ADAM), ("lean", Self::LEAN), ("all", Self::ALL), ("last", Self::LAST)];

    /// Names the first constant that is out of range.
    pub fn check(&self) -> Result<(), LearnerError> {
        let positive = |x: f32| (1e-9..=1e6).contains(&x);
        let share = |x: f32| (1e-6..=1.0).contains(&x);
        let trains = |what: Trained| !matches!(what, Trained::Last(0) | Trained::LowRank(0));
        for (ok, name) in [
            (self.transitions >= 2 * self.batch && self.transitions <= 1 << 20, "transitions"),
            ((1..=256).contains(&self.batch), "batch"),
            (self.actor_batch >= 1 && self.actor_batch <= self.batch, "actor_batch"),
            ((2..=32).contains(&self.candidates), "candidates"),
            (positive(self.critic_rate), "critic_rate"),
            (positive(self.actor_rate), "actor_rate"),
            (positive(self.gradient_limit), "gradient_limit"),
            ((0.0..1.0).contains(&self.discount), "discount"),
            (share(self.target_rate), "target_rate"),
            (share(self.acting_rate), "acting_rate"),
            (positive(self.temperature), "temperature"),
            (positive(self.spread), "spread"),
            (positive(self.reward_limit), "reward_limit"),
            ((0.0..=1.0).contains(&self.exploration), "exploration"),
            ((0.0..1.0).contains(&self.correlation), "correlation"),
            ((1..=64).contains(&self.stride), "stride"),
            ((1..=64).contains(&self.horizon), "horizon"),
            (self.every >= 1, "every"),
            (trains(self.actor), "actor"),
            (trains(self.critic), "critic"),
        ] {
            if !ok {
                return Err(LearnerError::Config(name));
            }
        }
        Ok(())
    }
}

impl core::fmt::Display for LearnerError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NumberFormat => f.write_str("only a policy in f32 can be fine-tuned: export it without --quantize"),
            Self::Critics => {
                f.write_str("fine-tuning starts from two critics, and the policy has none: export it with its critics")
            }
            Self::Trunk => {
                f.write_str("a policy with a residual trunk cannot be fine-tuned: train one with a plain trunk")
            }
            Self::Steps => {
                f.write_str("only a policy of one step from Gaussian noise can be fine-tuned: `distill` makes one")
            }
            Self::Config(name) => write!(f, "the learner's {name} is out of range"),
            Self::Slice { least, found } => {
                write!(f, "a slice of {found} instructions is too short for the learner: these sizes need {least}")
            }
            Self::Memory { expected, found } => {
                write!(f, "the learner needs {expected} words of memory, and there are {found}")
            }
        }
    }
}

impl core::error::Error for LearnerError {}
