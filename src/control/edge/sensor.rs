//! Sensors: counters of any width without their wrap, encoder angles with filtered speeds, converter counts in units.
//!
//! [`Encoder`] computes what the plants of the trainer compute (`plants::Furuta`), operation by operation in `f64`: an angle
//! in whole counts, and the speed as a first-order filtered difference of it. So what a policy sees on a robot has the
//! bits of what it saw in training, for the same counts. In soft floating point an update takes some hundred
//! instructions; it belongs into the loop, not into an interrupt handler.
//!
//! No panics, no allocation, deterministic.

use crate::control::Reason;
use core::f64::consts::TAU;

/// Why a sensor gives no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum SensorKind {
    /// It is at the end of what it can count, or moved more than it can in a sample.
    Saturated,
    /// It does not answer.
    Missing,
}

impl SensorKind {
    /// The reason under which the supervisor latches it.
    pub const fn reason(self) -> Reason {
        match self {
            Self::Saturated => Reason::Saturated,
            Self::Missing => Reason::Missing,
        }
    }
}

/// A hardware counter that wraps, made into a position that does not.
///
/// ```
/// use flowlet::control::edge::{SensorKind, Unwrap};
///
/// let mut arm = Unwrap::new(16, 65_530, 1_000).ok_or("width or largest step")?;
/// assert_eq!(arm.update(4), Ok(10)); // over the end of 16 bits
/// assert_eq!(arm.update(60_000), Err(SensorKind::Saturated));
/// assert_eq!(arm.update(3), Ok(9)); // one bad reading leaves no trace
/// # Ok::<(), &str>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Unwrap {
    /// 32 less the counter's width.
    shift: u32,
    last: u32,
    position: i32,
    largest: u32,
}

impl Unwrap {
    /// A counter of `bits` bits (2 to 32) that reads `first` now, which is position 0, and moves by at most `largest`
    /// counts between two samples; `None` unless that is above zero and below half of its range.
    pub fn new(bits: u32, first: u32, largest: u32) -> Option<Self> {
        let half = 1u32.checked_shl(bits.checked_sub(1)?)?;
        let sound = (2..=32).contains(&bits) && largest > 0 && largest < half;
        sound.then(|| Self { shift: 32 - bits, last: first, position: 0, largest })
    }

    /// The position after this reading; [`SensorKind::Saturated`] where it jumped, or left 32 bits.
    ///
    /// A refused reading changes nothing: the next one is compared with the last good one.
    pub fn update(&mut self, reading: u32) -> Result<i32, SensorKind> {
        let moved = (reading.wrapping_sub(self.last) << self.shift) as i32 >> self.shift;
        let position = self.position.checked_add(moved).ok_or(SensorKind::Saturated)?;
        if moved.unsigned_abs() > self.largest {
            return Err(SensorKind::Saturated);
        }
        (self.last, self.position) = (reading, position);
        Ok(position)
    }

    /// The last good position.
    pub fn position(&self) -> i32 {
        self.position
    }
}

/// Angle and speed from an incremental encoder, sampled at a fixed period.
#[derive(Debug, Clone, Copy)]
pub struct Encoder {
    counts: f64,
    period: f64,
    /// Share of the newest difference in the filtered speed.
    share: f64,
    angle: f64,
    speed: f64,
}

impl Encoder {
    /// An encoder of `counts` counts a turn, sampled every `period` seconds, whose speed filter has a bandwidth of `rate`
    /// rad/s; `None` unless all three are finite and above zero. It is at count 0 and at rest.
    pub fn new(counts: f64, period: f64, rate: f64) -> Option<Self> {
        let sound = [counts, period, rate].iter().all(|x| x.is_finite() && *x > 0.0);
        sound.then(|| Self { counts, period, share: -libm::expm1(-rate * period), angle: 0.0, speed: 0.0 })
    }

    /// Puts it at a count, at rest: for the start, where the zero of the angle is elsewhere than that of the counter.
    pub fn preset(&mut self, count: i32) {
        (self.angle, self.speed) = (self.angle_of(count), 0.0);
    }

    /// Takes in the count of this period.
    pub fn update(&mut self, count: i32) {
        let angle = self.angle_of(count);
        self.speed += self.share * ((angle - self.angle) / self.period - self.speed);
        self.angle = angle;
    }

    /// Angle, rad, not wrapped.
    pub fn angle(&self) -> f64 {
        self.angle
    }

    /// Filtered speed, rad/s.
    pub fn speed(&self) -> f64 {
        self.speed
    }

    fn angle_of(&self, count: i32) -> f64 {
        f64::from(count) * TAU / self.counts
    }
}

/// An analogue-to-digital converter with a linear sensor before it.
#[derive(Debug, Clone, Copy)]
pub struct Adc {
    /// Lowest and highest count of a sensor that works; beyond lies a short circuit or a broken wire.
    pub working: (u16, u16),
    /// Count at zero.
    pub zero: f32,
    /// Units a count.
    pub unit: f32,
}

impl Adc {
    /// The value of a count, `(count - zero) unit`; [`SensorKind::Saturated`] outside of what works.
    pub fn read(&self, count: u16) -> Result<f32, SensorKind> {
        let (low, high) = self.working;
        if count < low || count > high {
            return Err(SensorKind::Saturated);
        }
        Ok((f32::from(count) - self.zero) * self.unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plants::Furuta;
    use rand_core::SeedableRng;
    use rand_xoshiro::Xoshiro256PlusPlus;

    /// The oracle is the plant of the training: its encoders' counts go in, its observation must come out, bit by bit.
    #[test]
    fn observations_from_counts_have_the_bits_of_the_training_plant() {
        let mut plant = Furuta::new();
        plant.reset(&mut Xoshiro256PlusPlus::seed_from_u64(3));
        let p = *plant.params();
        let counts = |angle: f64| libm::floor(angle * p.encoder_counts / TAU + 0.5) as i32;
        let [mut arm, mut rod] = [Encoder::new(p.encoder_counts, p.dt, p.filter_rate).unwrap(); 2];
        // The pendulum's counter is at zero when it hangs, a half turn from upright.
        let half = p.encoder_counts as i32 / 2;
        let mut unwraps = [plant.theta, plant.alpha].map(&counts);
        let [arm_zero, rod_zero] = unwraps;
        arm.preset(arm_zero);
        rod.preset(rod_zero - half + half);
        let mut hardware = unwraps.map(|count| Unwrap::new(16, count as u32 & 0xffff, 200).unwrap());
        for step in 0..2000u32 {
            let (sin, cos) = libm::sincos(rod.angle());
            let seen = [arm.angle(), cos, sin, arm.speed(), rod.speed()];
            assert_eq!(seen.map(f64::to_bits), plant.observe().map(f64::to_bits), "step {step}");
            plant.step(if step / 60 % 2 == 0 { 9.0 } else { -9.0 });
            unwraps = [plant.theta, plant.alpha].map(&counts);
            let [a, r] = &mut hardware;
            arm.update(arm_zero + a.update(unwraps[0] as u32 & 0xffff).unwrap());
            rod.update(rod_zero + r.update(unwraps[1] as u32 & 0xffff).unwrap());
        }
        assert!(rod.speed().abs() > 1.0, "the pendulum swings");
    }

    #[test]
    fn counters_of_every_width_wrap_both_ways_and_jumps_are_refused() {
        for bits in 2..=32 {
            let mask = u32::MAX >> (32 - bits);
            let largest = (mask / 2).clamp(1, 1 << 20);
            let mut counter = Unwrap::new(bits, mask, largest).unwrap();
            let mut truth = 0i32;
            for step in 0..200i32 {
                let moved = if step % 50 < 25 { largest as i32 } else { -(largest as i32) };
                truth += moved;
                // The hardware keeps the low bits alone, whatever stands above them.
                let reading = (truth as u32).wrapping_add(mask) & mask;
                assert_eq!(counter.update(reading), Ok(truth), "{bits} bits, step {step}");
            }
            if largest < mask / 2 {
                let before = counter.position();
                let jump = (truth as u32).wrapping_add(mask).wrapping_add(largest + 1) & mask;
                assert_eq!(counter.update(jump), Err(SensorKind::Saturated));
                assert_eq!(counter.position(), before);
            }
        }
        for (bits, largest) in [(1, 1), (0, 1), (33, 1), (16, 0), (16, 1 << 15), (u32::MAX, 1)] {
            assert!(Unwrap::new(bits, 0, largest).is_none(), "{bits} {largest}");
        }
        // The end of the position.
        let mut counter = Unwrap::new(32, 0, (1 << 31) - 1).unwrap();
        assert_eq!(counter.update(i32::MAX as u32), Ok(i32::MAX));
        assert_eq!(counter.update(i32::MAX as u32 + 1), Err(SensorKind::Saturated));
    }

    #[test]
    fn encoders_and_converters_are_checked() {
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Encoder::new(bad, 0.002, 100.0).is_none());
            assert!(Encoder::new(2048.0, bad, 100.0).is_none());
            assert!(Encoder::new(2048.0, 0.002, bad).is_none());
        }
        let mut encoder = Encoder::new(4.0, 0.5, 2.0).unwrap();
        for count in [i32::MIN, i32::MAX, 0] {
            encoder.update(count);
            assert!(encoder.angle().is_finite() && encoder.speed().is_finite());
        }
        let adc = Adc { working: (100, 4000), zero: 2048.0, unit: 0.01 };
        assert_eq!(adc.read(2148), Ok(1.0));
        assert_eq!((adc.read(99), adc.read(4001)), (Err(SensorKind::Saturated), Err(SensorKind::Saturated)));
    }
}
