//! From raw encoder counts to the policy's observation, as the training's plant gives it.
//!
//! No panics; some soft-float `f64` arithmetic on most chips, once a control tick, outside of interrupts.

use crate::{TICK_HZ, Tick};
use flowlet::control::SensorFault;
use flowlet::control::edge::{Encoder, SensorKind, Unwrap};

/// Counts of a turn of both encoders, four to a line.
pub const COUNTS: u16 = 2048;

/// Bandwidth of the speeds' filter in training, rad/s.
const FILTER_RATE: f64 = 100.0;

/// Largest credible step of an encoder in a control tick: 128 counts in 2 ms are 196 rad/s, more than twice what the
/// pendulum reaches (see `CONFIG`).
const LARGEST_STEP: u32 = 128;

/// Observation channels of the angles.
const ARM: usize = 0;
const PENDULUM: usize = 1;

/// Both encoders.
#[derive(Debug)]
pub struct Sensors {
    arm: Joint,
    pendulum: Joint,
    /// Samples with lost counts at the zero.
    lost: u16,
}

/// One encoder: its counter and the angle made of it.
#[derive(Debug)]
struct Joint {
    counter: Unwrap,
    angle: Encoder,
    /// Count of the angle at the counter's start.
    zero: i32,
}

impl Joint {
    fn new(raw: u16, zero: i32) -> Option<Self> {
        let mut angle = Encoder::new(f64::from(COUNTS), 1.0 / f64::from(TICK_HZ), FILTER_RATE)?;
        angle.preset(zero);
        Some(Self { counter: Unwrap::new(16, raw.into(), LARGEST_STEP)?, angle, zero })
    }

    fn update(&mut self, raw: u16) -> Result<(), SensorKind> {
        self.angle.update(self.counter.update(raw.into())? + self.zero);
        Ok(())
    }
}

impl Sensors {
    /// The robot as it stands is the zero: the arm in the middle, the pendulum hanging, half a turn from upright.
    pub fn zero(tick: &Tick) -> Option<Self> {
        let [arm, pendulum] = tick.counts;
        let half_turn = i32::from(COUNTS / 2);
        Some(Self { arm: Joint::new(arm, 0)?, pendulum: Joint::new(pendulum, half_turn)?, lost: tick.lost })
    }

    /// The observation at this tick, or the encoder that jumped; after lost counts no angle is right any more, and both
    /// have failed until they are zeroed.
    pub fn observe(&mut self, tick: &Tick) -> Result<[f32; 5], SensorFault> {
        let [arm, pendulum] = tick.counts;
        if tick.lost != self.lost {
            return Err(SensorFault { channel: ARM, kind: SensorKind::Saturated });
        }
        let at = |channel: usize| move |kind: SensorKind| SensorFault { channel, kind };
        self.arm.update(arm).map_err(at(ARM))?;
        self.pendulum.update(pendulum).map_err(at(PENDULUM))?;
        let (arm, pendulum) = (&self.arm.angle, &self.pendulum.angle);
        let (sin, cos) = libm::sincos(pendulum.angle());
        Ok([arm.angle(), cos, sin, arm.speed(), pendulum.speed()].map(|value| value as f32))
    }
}
