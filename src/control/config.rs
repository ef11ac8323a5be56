//! The controller's configuration, and its check against the policy: an artefact for another robot is refused here.
//!
//! No panics, no allocation; runs once, before the motors are driven.

use super::{GateError, Limits, Timing, TimingError, Tolerance};
use crate::policy::{Artefact, PolicyError};

/// Which samples of a channel the policy sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Average {
    /// The latest one, as in training.
    #[default]
    Latest,
    /// The mean of the good ones since the last decision.
    Mean,
}

/// What is commanded between two decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Hold {
    /// The last action, as in training.
    #[default]
    Zero,
    /// A straight line from the action before it, which is reached when the next decision is due: smooth and later.
    Linear,
}

/// What a robot expects of its policy, and how it is to be driven.
#[derive(Debug, Clone, Copy)]
pub struct Config<const OBS: usize, const ACT: usize> {
    /// Control period in microseconds; the artefact's period must be a whole number of them.
    pub period_us: u32,
    /// Names of the observation channels that this robot has, in order.
    pub observations: [&'static str; OBS],
    /// Names of its action channels.
    pub actions: [&'static str; ACT],
    /// What the commands may do.
    pub limits: [Limits; ACT],
    /// Lowest and highest plausible value of each observation channel; infinite where there is none.
    pub plausible: [(f32, f32); OBS],
    /// Which samples of each channel the policy sees.
    pub average: [Average; OBS],
    /// What is commanded between decisions.
    pub hold: Hold,
    /// When glitches and late steps become faults.
    pub tolerance: Tolerance,
    /// The control period in timer ticks; without it nothing is timed and every decision is by the longest plan.
    pub timing: Option<Timing>,
}

impl<const OBS: usize, const ACT: usize> Config<OBS, ACT> {
    /// Held actions, latest samples, no plausible ranges, the default tolerance, nothing timed.
    pub const fn new(
        period_us: u32,
        observations: [&'static str; OBS],
        actions: [&'static str; ACT],
        limits: [Limits; ACT],
    ) -> Self {
        Self {
            period_us,
            observations,
            actions,
            limits,
            plausible: [(f32::NEG_INFINITY, f32::INFINITY); OBS],
            average: [Average::Latest; OBS],
            hold: Hold::Zero,
            tolerance: Tolerance { sensor: 3, late: 3 },
            timing: None,
        }
    }
}

/// Why a controller is refused.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ConfigError {
    /// The policy's self-test failed.
    Policy(PolicyError),
    /// The limits of the commands were refused.
    Gate(GateError),
    /// The timing was refused.
    Timing(TimingError),
    /// The artefact has another number of channels.
    Channels {
        /// `observation` or `action`.
        kind: &'static str,
        /// Channels of the artefact.
        artefact: usize,
        /// Channels of the robot.
        robot: usize,
    },
    /// The first channel with another name in the artefact.
    Name {
        /// `observation` or `action`.
        kind: &'static str,
        /// Index of the channel.
        channel: usize,
        /// Its name on the robot.
        robot: &'static str,
    },
    /// The artefact's period is not a whole number of control periods, or of more than 65,535.
    Period {
        /// Microseconds between the policy's decisions.
        artefact: u32,
        /// Microseconds of the control period.
        control: u32,
    },
    /// The limits of a channel and the policy's range have no command in common.
    Range {
        /// Index of the action channel.
        channel: usize,
    },
    /// A plausible range is reversed or NaN.
    Plausible {
        /// Index of the observation channel.
        channel: usize,
    },
    /// A tolerance is not in 1 to 100.
    Tolerance,
}

/// Checks everything that the artefact must have in common with this robot; control periods to a decision.
///
/// Not generic, so that a firmware carries it once.
pub(super) fn check(
    artefact: &Artefact<'_>,
    period_us: u32,
    observations: &[&'static str],
    actions: &[&'static str],
) -> Result<u16, ConfigError> {
    check_names("observation", artefact.obs_names(), observations)?;
    check_names("action", artefact.act_names(), actions)?;
    ticks_per_decision(artefact.period_us(), period_us)
}

fn check_names<'n>(
    kind: &'static str,
    artefact: impl Iterator<Item = &'n str> + Clone,
    robot: &[&'static str],
) -> Result<(), ConfigError> {
    let channels = artefact.clone().count();
    if channels != robot.len() {
        return Err(ConfigError::Channels { kind, artefact: channels, robot: robot.len() });
    }
    for (channel, (name, robot)) in artefact.zip(robot).enumerate() {
        if name != *robot {
            return Err(ConfigError::Name { kind, channel, robot });
        }
    }
    Ok(())
}

fn ticks_per_decision(artefact: u32, control: u32) -> Result<u16, ConfigError> {
    let refused = ConfigError::Period { artefact, control };
    if artefact.checked_rem(control) != Some(0) {
        return Err(refused);
    }
    artefact.checked_div(control).and_then(|ticks| u16::try_from(ticks).ok()).ok_or(refused)
}

pub(super) fn check_ranges(limits: &[Limits], artefact: &Artefact<'_>) -> Result<(), ConfigError> {
    let range = artefact.range();
    for (channel, (limits, (low, high))) in limits.iter().zip(range.low.iter().zip(range.high)).enumerate() {
        if limits.high < *low || limits.low > *high {
            return Err(ConfigError::Range { channel });
        }
    }
    Ok(())
}

pub(super) fn check_plausible(plausible: &[(f32, f32)]) -> Result<(), ConfigError> {
    match plausible.iter().position(|(low, high)| low.partial_cmp(high) != Some(core::cmp::Ordering::Less)) {
        Some(channel) => Err(ConfigError::Plausible { channel }),
        None => Ok(()),
    }
}

impl core::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Policy(error) => error.fmt(f),
            Self::Gate(error) => error.fmt(f),
            Self::Timing(error) => error.fmt(f),
            Self::Channels { kind, artefact, robot } => {
                write!(f, "the artefact has {artefact} {kind} channels and this robot {robot}: it is another robot's")
            }
            Self::Name { kind, channel, robot } => write!(
                f,
                "{kind} channel {channel} is '{robot}' on this robot and something else in the artefact: it is another robot's"
            ),
            Self::Period { artefact, control } => write!(
                f,
                "the policy decides every {artefact} us, which must be a whole number (at most 65535) of control periods of {control} us"
            ),
            Self::Range { channel } => write!(
                f,
                "the limits of action channel {channel} exclude every action of the policy: compare their units"
            ),
            Self::Plausible { channel } => {
                write!(f, "the plausible range of observation channel {channel} is reversed or not a number")
            }
            Self::Tolerance => f.write_str("a tolerance must lie in 1 to 100 samples or steps"),
        }
    }
}

impl core::error::Error for ConfigError {}
