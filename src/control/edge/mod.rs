//! The edge: raw integers of the chip's peripherals to units, and commands to duty cycles.
//!
//! Counters and converters are read by the chip's own means (there is no portable trait for them) and come in as
//! integers; what goes out does so by the traits of `embedded-hal` 1.0: [`SetDutyCycle`](embedded_hal::pwm::SetDutyCycle),
//! [`OutputPin`](embedded_hal::digital::OutputPin), and [`InputPin`](embedded_hal::digital::InputPin) for the stop.
//!
//! No panics, no allocation, nothing waits; the same bits everywhere.

mod drive;
mod sensor;

pub use drive::{Decay, DriveError, PhaseEnable, Scale, StopInput, TwoPwm};
pub use sensor::{Adc, Encoder, SensorKind, Unwrap};
