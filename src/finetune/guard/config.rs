//! How trials are held, and why a guard refuses. No panics, no allocation.

/// How trials are held; see the [module](super) for what is tested.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Config {
    /// Measured steps of a block, at least 1: as long as it takes to see a difference, or an episode's limit.
    pub block: u16,
    /// Steps at the start of a block that are not measured: as long as the player before is felt.
    pub settle: u16,
    /// Rounds after which a candidate is given up, at least 1.
    pub rounds: u16,
    /// Probability that a candidate which is not better is ever promoted, 1e-6 to 0.5.
    pub alpha: f32,
    /// Probability that a candidate which is not worse is stopped for harm, 1e-6 to 0.5.
    pub beta: f32,
    /// Gain in the mean metric that is not worth a promotion, 0 to 0.5.
    pub margin: f32,
    /// What the metric of a step is multiplied by where the gate held the policy back, 0 to 1.
    pub correction: f32,
    /// Blocks of a promoted policy between two rounds in which it plays against the factory's again; 0 for none.
    pub audit: u16,
    /// Least average number of such rounds to a false return to the factory's, at least 1.
    pub watch: u16,
}

impl Config {
    /// Blocks of `block` measured steps after a quarter as many to settle; 200 rounds, `alpha` 0.05, `beta` 0.1, `margin`
    /// 0.01, corrected steps count in full, one audit in 16 blocks, a false return in 1,000 of them.
    pub const fn new(block: u16) -> Self {
        Self {
            block,
            settle: block / 4,
            rounds: 200,
            alpha: 0.05,
            beta: 0.1,
            margin: 0.01,
            correction: 1.0,
            audit: 16,
            watch: 1_000,
        }
    }

    pub(super) fn check(&self) -> Result<(), GuardError> {
        let rate = 1e-6..=0.5;
        if self.block == 0 || self.rounds == 0 || self.watch == 0 {
            Err(GuardError::Length)
        } else if !rate.contains(&self.alpha) || !rate.contains(&self.beta) {
            Err(GuardError::Rate)
        } else if !(0.0..=0.5).contains(&self.margin) {
            Err(GuardError::Margin)
        } else if !(0.0..=1.0).contains(&self.correction) {
            Err(GuardError::Correction)
        } else {
            Ok(())
        }
    }
}

/// Why the guard refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum GuardError {
    /// A block of no steps, a trial or a watch of no rounds.
    Length,
    /// `alpha` or `beta` is outside 1e-6 to 0.5.
    Rate,
    /// The margin is outside 0 to 0.5.
    Margin,
    /// The worth of a corrected step is outside 0 to 1.
    Correction,
    /// There is a candidate already.
    Busy,
    /// 65,535 candidates were tried.
    Spent,
    /// No candidate was promoted.
    NotPromoted,
    /// The bytes are of another version.
    Version {
        /// The one found.
        version: u8,
    },
    /// The bytes are of a guard with another configuration.
    OtherConfig,
    /// The bytes are of no guard.
    Corrupt,
}

impl core::fmt::Display for GuardError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Length => "the guard's block, rounds and watch must be at least 1",
            Self::Rate => "the guard's alpha and beta must lie between 1e-6 and 0.5",
            Self::Margin => "the guard's margin must lie between 0 and 0.5",
            Self::Correction => "the worth of a corrected step must lie between 0 and 1",
            Self::Busy => "a candidate is on trial or waits for its commit: wait for the verdict, commit or abandon it",
            Self::Spent => "65,535 candidates were tried and no error is left to spend: begin with a new guard",
            Self::NotPromoted => "no candidate was promoted: commit after the verdict says so",
            Self::Version { version } => {
                return write!(
                    f,
                    "the guard's state is of version {version} and cannot be read: begin with a new guard"
                );
            }
            Self::OtherConfig => "the guard's state was written with another configuration: begin with a new guard",
            Self::Corrupt => "the guard's state is damaged: take an older copy or begin with a new guard",
        })
    }
}

impl core::error::Error for GuardError {}
