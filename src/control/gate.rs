//! The safety gate: the last thing a command passes on its way to a motor.
//!
//! A channel has a range and, if wanted, a largest rate (units/s) and a largest change of that rate (units/s^2, "jerk" of
//! the command). What comes out is finite and inside its range for any sequence of wishes whatsoever, NaN included; rate
//! and jerk hold to the rounding of the command ([`Gate::ROUNDING`]). A lawful wish passes with its bits where neither rate
//! nor jerk is limited, so a robot behind a gate takes the actions that its evaluation on the PC took.
//!
//! With a limited jerk the command brakes in time: it neither overshoots a constant wish from rest nor runs into the end
//! of its range. Where a range's end would need more than the jerk, the range wins.
//!
//! No panics, no allocation, deterministic; three comparisons a channel, and with a limited jerk three square roots and
//! as many divisions more.

use crate::math;

/// What a channel's command may do, in the plant's units.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Limits {
    /// Lowest command.
    pub low: f32,
    /// Highest command, above the lowest.
    pub high: f32,
    /// Largest change of the command in a second; infinite where it is not limited.
    pub rate: f32,
    /// Largest change of the rate in a second; infinite where it is not limited.
    pub jerk: f32,
    /// Command that is approached, within rate and jerk, after a fault.
    pub fallback: f32,
    /// Command at rest, and at once on an emergency stop, past rate and jerk.
    pub stop: f32,
}

impl Limits {
    /// A range without limits of rate and jerk; fallback and stop are zero.
    pub const fn new(low: f32, high: f32) -> Self {
        Self { low, high, rate: f32::INFINITY, jerk: f32::INFINITY, fallback: 0.0, stop: 0.0 }
    }

    /// With a largest change in units a second.
    pub const fn rate(self, rate: f32) -> Self {
        Self { rate, ..self }
    }

    /// With a largest change of the rate in units a second, a second.
    pub const fn jerk(self, jerk: f32) -> Self {
        Self { jerk, ..self }
    }

    /// With another command after a fault than zero.
    pub const fn fallback(self, fallback: f32) -> Self {
        Self { fallback, ..self }
    }

    /// With another command at rest and on an emergency stop than zero.
    pub const fn stop(self, stop: f32) -> Self {
        Self { stop, ..self }
    }
}

/// Why limits are refused; every one names the action channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum GateError {
    /// A limit, the fallback or the stop is NaN, infinite, above 2^100 or, without being zero, below 2^-50.
    Number {
        /// Index of the channel.
        channel: usize,
    },
    /// The lower limit is not below the upper one.
    Reversed {
        /// Index of the channel.
        channel: usize,
    },
    /// The rate is not above zero, or NaN.
    Rate {
        /// Index of the channel.
        channel: usize,
    },
    /// The jerk is not above zero, or NaN.
    Jerk {
        /// Index of the channel.
        channel: usize,
    },
    /// The range's larger end is more than 2^20 times what the rate allows in a period, or 2^16 times what the jerk does:
    /// too little beside the command's rounding.
    Slow {
        /// Index of the channel.
        channel: usize,
    },
    /// The fallback lies outside the range.
    Fallback {
        /// Index of the channel.
        channel: usize,
    },
    /// The stop lies outside the range.
    Stop {
        /// Index of the channel.
        channel: usize,
    },
    /// The period is zero.
    Period,
}

/// One channel with what it remembers; changes are those of one period.
#[derive(Debug, Clone, Copy)]
struct Channel {
    limits: Limits,
    /// Largest change of the command.
    step: f32,
    /// Largest change of that change.
    bend: f32,
    /// The last command, and the change that led to it.
    at: f32,
    moving: f32,
}

impl Channel {
    fn new(limits: &Limits, period_us: u32, channel: usize) -> Result<Self, GateError> {
        let Limits { low, high, rate, jerk, fallback, stop } = *limits;
        // 2^100: a difference of two commands is finite.
        let lawful = |x: f32| x == 0.0 || (x.abs() >= math::FLUSH && x.abs() <= 1.0 / math::FLUSH_BIAS);
        if ![low, high, fallback, stop].into_iter().all(lawful) {
            return Err(GateError::Number { channel });
        }
        if low >= high {
            return Err(GateError::Reversed { channel });
        }
        let positive = |x: f32| x > 0.0;
        if !positive(rate) {
            return Err(GateError::Rate { channel });
        }
        if !positive(jerk) {
            return Err(GateError::Jerk { channel });
        }
        let period = period_us as f32 * 1e-6;
        let (step, bend) = (rate * period, jerk * period * period);
        let size = if high.abs() > low.abs() { high.abs() } else { low.abs() };
        if step < size * (1.0 / (1 << 20) as f32) || bend < size * (1.0 / (1 << 16) as f32) {
            return Err(GateError::Slow { channel });
        }
        let inside = |x: f32| x >= low && x <= high;
        if !inside(fallback) {
            return Err(GateError::Fallback { channel });
        }
        if !inside(stop) {
            return Err(GateError::Stop { channel });
        }
        Ok(Self { limits: *limits, step, bend, at: stop, moving: 0.0 })
    }

    /// The next command towards `wish`; the fallback where that is NaN or infinite.
    fn approach(&mut self, wish: f32) -> f32 {
        let Limits { low, high, .. } = self.limits;
        let wish = if wish.is_finite() { wish } else { self.limits.fallback };
        let wish = bounded(wish, low, high);
        let next = if self.bend < f32::INFINITY {
            self.braking(wish)
        } else {
            let gap = wish - self.at;
            let change = math::clip(gap, self.step);
            if change == gap { wish } else { self.at + change }
        };
        let next = bounded(math::flush(next), low, high);
        self.moving = next - self.at;
        self.at = next;
        next
    }

    /// The next command towards `wish` under a limited jerk.
    fn braking(&self, wish: f32) -> f32 {
        let gap = wish - self.at;
        let bend = BRAKING * self.bend;
        let towards = stoppable(gap.abs(), bend);
        let towards = if gap < 0.0 { -towards } else { towards };
        // What rate and the ends of the range allow, and then what the jerk does, which is the stricter by its nature.
        let up = math::clip(stoppable(self.limits.high - self.at, bend), self.step);
        let down = math::clip(stoppable(self.at - self.limits.low, bend), self.step);
        let change = bounded(towards, -down, up);
        let change = bounded(change, self.moving - self.bend, self.moving + self.bend);
        if change == gap { wish } else { self.at + change }
    }
}

/// Share of the jerk with which a command plans to brake. What is left makes up for roundings: 2^-24 of the larger end in
/// a period, where a sixteenth of the least jerk is 2^-20 of it.
const BRAKING: f32 = 15.0 / 16.0;

/// The largest change of this period from which, with changes that shrink by `bend` a period, the rest fits `room`.
///
/// With `m` further periods the changes are `v, v - bend, ..., v - m bend`, and `v` lies in `m..m + 1` times `bend`.
fn stoppable(room: f32, bend: f32) -> f32 {
    if room <= bend {
        return if room > 0.0 { room } else { 0.0 };
    }
    // Not above 2^10: a jerk allows at least 2^-16 of the range's larger end.
    let m = (0.5 * (math::sqrt(1.0 + 8.0 * (room / bend)) - 1.0)) as u32 as f32;
    0.5 * m * bend + room / (m + 1.0)
}

/// `x` held in `low..=high`; no limit is NaN.
fn bounded(x: f32, low: f32, high: f32) -> f32 {
    if x > high {
        high
    } else if x < low {
        low
    } else {
        x
    }
}

/// The gate of a robot with `ACT` action channels.
///
/// ```
/// use flowlet::control::{Gate, Limits};
///
/// // 10 V either way, 1000 V/s, a period of 2 ms.
/// let mut gate = Gate::new(&[Limits::new(-10.0, 10.0).rate(1000.0)], 2_000)?;
/// assert_eq!(gate.apply(&[1.5]), [1.5]);
/// assert_eq!(gate.apply(&[9.0]), [3.5]);
/// assert_eq!(gate.apply(&[f32::NAN]), [1.5]); // towards the fallback, 0 V
/// # Ok::<(), flowlet::control::GateError>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Gate<const ACT: usize> {
    channels: [Channel; ACT],
}

impl<const ACT: usize> Gate<ACT> {
    /// Share of the range's larger end to which rate and jerk are held: each command is rounded by 2^-24 of itself, and
    /// a jerk is made of three of them.
    pub const ROUNDING: f32 = 1.0 / (1 << 22) as f32;

    /// Checks the limits; the commands begin at their stop.
    pub fn new(limits: &[Limits; ACT], period_us: u32) -> Result<Self, GateError> {
        if period_us == 0 {
            return Err(GateError::Period);
        }
        let blank = Channel { limits: Limits::new(0.0, 0.0), step: 0.0, bend: 0.0, at: 0.0, moving: 0.0 };
        let mut channels = [blank; ACT];
        for (index, (channel, limits)) in channels.iter_mut().zip(limits).enumerate() {
            *channel = Channel::new(limits, period_us, index)?;
        }
        Ok(Self { channels })
    }

    /// The next command towards `wish`; a channel whose wish is NaN or infinite approaches its fallback.
    pub fn apply(&mut self, wish: &[f32; ACT]) -> [f32; ACT] {
        let mut command = *wish;
        approach(&mut self.channels, &mut command);
        command
    }

    /// The next command towards the fallback.
    pub fn fall_back(&mut self) -> [f32; ACT] {
        self.apply(&self.channels.map(|channel| channel.limits.fallback))
    }

    /// The next command towards rest, the stop of every channel, within rate and jerk.
    pub fn rest(&mut self) -> [f32; ACT] {
        self.apply(&self.channels.map(|channel| channel.limits.stop))
    }

    /// The stop of every channel, at once: an emergency stop does not wait for rate and jerk.
    pub fn stop(&mut self) -> [f32; ACT] {
        for channel in &mut self.channels {
            (channel.at, channel.moving) = (channel.limits.stop, 0.0);
        }
        self.last()
    }

    /// Whether the last command is rest, with nothing left to approach.
    pub fn is_at_rest(&self) -> bool {
        self.channels.iter().all(|channel| channel.at == channel.limits.stop && channel.moving == 0.0)
    }

    /// The last command; the stop before the first.
    pub fn last(&self) -> [f32; ACT] {
        self.channels.map(|channel| channel.at)
    }
}

/// Not generic, so that a firmware carries it once.
fn approach(channels: &mut [Channel], commands: &mut [f32]) {
    for (channel, command) in channels.iter_mut().zip(commands) {
        *command = channel.approach(*command);
    }
}

impl core::fmt::Display for GateError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Number { channel } => write!(
                f,
                "a limit, the fallback or the stop of action channel {channel} is not a finite number between 2^-50 and 2^100 in magnitude, or zero"
            ),
            Self::Reversed { channel } => {
                write!(f, "the limits of action channel {channel} are reversed: the lower one must be below the upper")
            }
            Self::Rate { channel } => {
                write!(
                    f,
                    "the rate of action channel {channel} must be above zero: leave it out where there is no limit"
                )
            }
            Self::Jerk { channel } => {
                write!(
                    f,
                    "the jerk of action channel {channel} must be above zero: leave it out where there is no limit"
                )
            }
            Self::Slow { channel } => write!(
                f,
                "rate or jerk of action channel {channel} allow so small a change in a period that rounding would take it: raise them"
            ),
            Self::Fallback { channel } => write!(
                f,
                "the fallback of action channel {channel} lies outside its limits: set one inside, or widen the limits"
            ),
            Self::Stop { channel } => {
                write!(
                    f,
                    "the stop of action channel {channel} lies outside its limits: set one inside, or widen the limits"
                )
            }
            Self::Period => f.write_str("the control period must be above zero"),
        }
    }
}

impl core::error::Error for GateError {}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use rand_core::{Rng, SeedableRng};
    use rand_xoshiro::Xoshiro128PlusPlus;
    use std::vec::Vec;

    const MS: u32 = 1_000;

    /// Wishes of every kind: lawful, far outside, tiny, not numbers, any 32 bits.
    fn wish(rng: &mut Xoshiro128PlusPlus, size: f32) -> f32 {
        let x = math::symmetric_uniform(rng.next_u32());
        match rng.next_u32() % 16 {
            0 => f32::NAN,
            1 => f32::INFINITY,
            2 => f32::NEG_INFINITY,
            3 => f32::from_bits(rng.next_u32()),
            4 => x * f32::MAX,
            5 => x * 1e-40,
            6 => 1e3 * size * x,
            _ => size * x,
        }
    }

    #[test]
    fn without_rate_and_jerk_a_lawful_wish_keeps_its_bits() {
        let mut gate = Gate::new(&[Limits::new(-2.0, 3.0)], MS).unwrap();
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(1);
        for _ in 0..100_000 {
            let x = 3.0 * math::symmetric_uniform(rng.next_u32());
            let expected = if x < -2.0 { -2.0f32 } else { x };
            assert_eq!(gate.apply(&[x])[0].to_bits(), expected.to_bits());
        }
        assert_eq!(gate.apply(&[f32::MAX]), [3.0]);
        assert_eq!(gate.apply(&[f32::INFINITY]), [0.0]);
    }

    /// The sweep: whatever is wished, for limits of every kind.
    #[test]
    fn commands_are_finite_and_within_all_limits_for_any_wishes() {
        let none = f32::INFINITY;
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(2);
        let ranges = [(-10.0, 10.0), (0.0, 1.0), (2.0, 2.5), (-1e30, 1e-3), (-1e-6, 1e-6)];
        for (low, high) in ranges {
            let size = if high > -low { high } else { -low };
            // In units of the range's larger end: from the least that is allowed to more than all of it.
            for (step, bend) in
                [(none, none), (0.3, none), (2e-6, none), (none, 0.01), (0.2, 0.03), (0.01, 0.7), (1e-3, 2e-5)]
            {
                let (rate, jerk) = (size * step * 1e3, size * bend * 1e6);
                let middle = low + 0.5 * (high - low);
                let limits = Limits::new(low, high).rate(rate).jerk(jerk).fallback(middle).stop(low);
                let mut gate = Gate::new(&[limits], MS).unwrap();
                let rounding = Gate::<1>::ROUNDING * size;
                let (mut before, mut change) = (gate.last()[0], 0.0f32);
                let mut held = 0.0;
                for i in 0..20_000 {
                    // Bursts of noise and constant wishes, which reach the ends at speed.
                    if i % 64 == 0 || i % 512 < 64 {
                        held = wish(&mut rng, size);
                    }
                    if rng.next_u32() % 4096 == 0 {
                        assert_eq!(gate.stop(), [low]);
                        (before, change) = (low, 0.0);
                    }
                    let [command] = gate.apply(&[held]);
                    assert!(command >= low && command <= high, "{limits:?}: {command}");
                    let now = command - before;
                    assert!(now.abs() <= size * step * 1.000_001 + rounding, "{limits:?} at {i}: moved {now}");
                    let bent = (now - change).abs();
                    assert!(bent <= size * bend * 1.000_001 + rounding, "{limits:?} at {i}: bent {bent}");
                    (before, change) = (command, now);
                }
            }
        }
    }

    /// From rest to a constant wish without overshoot, in the number of periods of the time-optimal motion, then for ever
    /// the wish's own bits.
    #[test]
    fn a_constant_wish_is_reached_exactly_and_not_overshot() {
        for (step, bend) in [(f32::INFINITY, 0.01f32), (0.05, 0.01), (0.003, 0.5)] {
            let limits = Limits::new(-1.0, 1.0).rate(step * 1e3).jerk(bend * 1e6);
            let mut gate = Gate::new(&[limits], MS).unwrap();
            for wish in [0.7, -0.9, -0.9 + 0.004, 1.0, 0.0] {
                let start = gate.last()[0];
                let way = (f64::from(wish) - f64::from(start)).abs();
                let (step, bend) = (f64::from(step.min(2.0)), f64::from(BRAKING * bend));
                // Continuous time, in periods: speed up and slow down by `bend`, between them no faster than `step`.
                let peak = step.min((way * bend).sqrt());
                let periods = way / peak + peak / bend;
                let mut passed = Vec::new();
                while gate.last()[0] != wish {
                    passed.push(gate.apply(&[wish])[0]);
                    assert!(passed.len() as f64 <= periods + 3.0, "{limits:?} to {wish}: {passed:?}");
                }
                assert!(passed.is_sorted_by(|a, b| if wish > start { a <= b } else { a >= b }), "{passed:?}");
                for _ in 0..3 {
                    assert_eq!(gate.apply(&[wish])[0].to_bits(), wish.to_bits());
                }
            }
        }
    }

    #[test]
    fn wrong_limits_are_named() {
        let good = Limits::new(-1.0, 1.0);
        let (channel, nan) = (1, f32::NAN);
        for (bad, error) in [
            (Limits::new(1.0, -1.0), GateError::Reversed { channel }),
            (Limits::new(1.0, 1.0), GateError::Reversed { channel }),
            (Limits::new(nan, 1.0), GateError::Number { channel }),
            (Limits::new(-1.0, nan), GateError::Number { channel }),
            (Limits::new(-1.0, f32::INFINITY), GateError::Number { channel }),
            (Limits::new(-1e31, 1.0), GateError::Number { channel }),
            (Limits::new(1e-40, 1.0), GateError::Number { channel }),
            (good.rate(0.0), GateError::Rate { channel }),
            (good.rate(-1.0), GateError::Rate { channel }),
            (good.rate(nan), GateError::Rate { channel }),
            (good.jerk(0.0), GateError::Jerk { channel }),
            (good.jerk(nan), GateError::Jerk { channel }),
            (good.rate(1e-4), GateError::Slow { channel }),
            (good.jerk(1e-2), GateError::Slow { channel }),
            (good.fallback(1.5), GateError::Fallback { channel }),
            (good.fallback(nan), GateError::Number { channel }),
            (Limits::new(0.5, 1.0), GateError::Fallback { channel }),
            (Limits::new(0.5, 1.0).fallback(0.7), GateError::Stop { channel }),
            (good.stop(-1.5), GateError::Stop { channel }),
            (good.stop(nan), GateError::Number { channel }),
        ] {
            assert_eq!(Gate::new(&[good, bad], MS).err(), Some(error), "{bad:?}");
        }
        assert_eq!(Gate::new(&[good], 0).err(), Some(GateError::Period));
    }
}
