//! The plants that host-train trains on and that the firmware simulates on the device.
//!
//! One implementation serves both sides, so a return measured on the PC and a return measured in QEMU come from the
//! same arithmetic: everything is `f64` through `libm`, in a fixed order, and gives the same bits on every target.
//! `no_std`, no allocator, no `unsafe`; nothing here panics, whatever numbers come in (a NaN action gives a NaN state).
//!
//! Cost: one pendulum step is one sine and one floating remainder; the others take the four stages of a Runge-Kutta
//! step with a sine and a cosine each (a cart-pole step eight of them and two exponentials), the puck of the fork none.
//! All of them are software on a chip without a double-precision unit.
//!
//! ```
//! use plants::Pendulum;
//! let mut pendulum = Pendulum::new();
//! pendulum.theta = 0.1; // nearly upright
//! let reward = pendulum.step(-1.0);
//! assert!(reward < 0.0 && reward > -0.02);
//! let [cos, sin, theta_dot] = pendulum.observe();
//! assert!(cos > 0.99 && sin > 0.0 && theta_dot < 0.0);
//! ```
#![no_std]
#![forbid(unsafe_code)]

mod acrobot;
mod cartpole;
mod fork;
mod furuta;
mod mechanics;
mod pendulum;
mod quadrotor2d;
mod random;

pub use acrobot::{Acrobot, AcrobotParams};
pub use cartpole::{Cartpole, CartpoleParams};
pub use fork::{Fork, ForkParams, ForkState};
pub use furuta::{Furuta, FurutaParams};
pub use pendulum::{Pendulum, PendulumParams};
pub use quadrotor2d::{Quadrotor2d, Quadrotor2dParams};
pub use random::{normal, uniform, uniform_in};

use core::fmt;

/// Why a physical parameter was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParamError {
    /// The plant has no parameter of that name; the ones it has.
    Unknown(&'static [&'static str]),
    /// The parameter must be a finite number above zero.
    NotPositive(&'static str),
    /// The parameter must be a finite number, zero or above.
    Negative(&'static str),
    /// The parameter must be a finite number.
    NotFinite(&'static str),
    /// The parameter must be what the second entry says.
    OutOfRange(&'static str, &'static str),
}

impl fmt::Display for ParamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(keys) => {
                f.write_str("no such parameter: use one of ")?;
                for (i, key) in keys.iter().enumerate() {
                    write!(f, "{}{key}", if i == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
            Self::NotPositive(key) => write!(f, "{key} must be a finite number above zero"),
            Self::Negative(key) => write!(f, "{key} must be a finite number, zero or above"),
            Self::NotFinite(key) => write!(f, "{key} must be a finite number"),
            Self::OutOfRange(key, range) => write!(f, "{key} must be {range}"),
        }
    }
}

impl core::error::Error for ParamError {}

/// 1 at the middle, falling to 0 at 2 on either side, m or rad; 0 for what is no number.
fn nearness(x: f32) -> f32 {
    let near = 1.0 - 0.5 * x.abs();
    if near > 0.0 { near } else { 0.0 }
}

/// What a parameter may be.
#[derive(Clone, Copy)]
enum Range {
    Positive,
    NonNegative,
    Finite,
}

impl Range {
    fn check(self, key: &'static str, value: f64) -> Result<f64, ParamError> {
        match self {
            Self::Positive if !(value.is_finite() && value > 0.0) => Err(ParamError::NotPositive(key)),
            Self::NonNegative if !(value.is_finite() && value >= 0.0) => Err(ParamError::Negative(key)),
            Self::Finite if !value.is_finite() => Err(ParamError::NotFinite(key)),
            _ => Ok(value),
        }
    }
}

/// `f64::clamp` without its panic on a NaN limit.
fn clip(value: f64, low: f64, high: f64) -> f64 {
    if value < low {
        low
    } else if value > high {
        high
    } else {
        value
    }
}

/// Declares a parameter struct whose fields can be listed and set by name.
macro_rules! params {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $field:ident: $range:ident = $default:expr,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct $name { $($(#[$doc])* pub $field: f64,)* }

        impl $name {
            /// The names of the parameters, in order.
            pub const KEYS: &'static [&'static str] = &[$(stringify!($field)),*];

            /// Every parameter with its value, in the order of [`Self::KEYS`].
            pub fn list(&self) -> [(&'static str, f64); Self::KEYS.len()] {
                [$((stringify!($field), self.$field)),*]
            }

            /// Sets one parameter by name. A refused value leaves everything as it was.
            pub fn set(&mut self, key: &str, value: f64) -> Result<(), crate::ParamError> {
                match key {
                    $(stringify!($field) => self.$field = crate::Range::$range.check(stringify!($field), value)?,)*
                    _ => return Err(crate::ParamError::Unknown(Self::KEYS)),
                }
                Ok(())
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
    };
}
use params;

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn parameters_are_set_by_name_and_checked() {
        let mut p = PendulumParams::default();
        p.set("mass", 2.5).unwrap();
        p.set("gravity", -1.0).unwrap();
        assert_eq!((p.mass, p.gravity), (2.5, -1.0));
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(p.set("mass", bad), Err(ParamError::NotPositive("mass")));
        }
        assert_eq!(p.set("gravity", f64::NAN), Err(ParamError::NotFinite("gravity")));
        assert_eq!(p.mass, 2.5);
        let sentence = p.set("masss", 1.0).unwrap_err().to_string();
        assert!(PendulumParams::KEYS.iter().all(|k| sentence.contains(k)), "{sentence}");
        let mut c = CartpoleParams::default();
        assert_eq!(c.set("cart_damping", -0.1), Err(ParamError::Negative("cart_damping")));
        assert_eq!(c.list().len(), CartpoleParams::KEYS.len());
    }

    #[test]
    fn clip_survives_nan() {
        assert_eq!(clip(3.0, -1.0, 1.0), 1.0);
        assert_eq!(clip(-3.0, -1.0, 1.0), -1.0);
        assert!(clip(f64::NAN, -1.0, 1.0).is_nan());
        assert_eq!(clip(2.0, f64::NAN, f64::NAN), 2.0);
    }

    /// One at the goal, nothing where it hangs, and never outside of [0, 1] or no number.
    #[test]
    fn metrics_tell_the_goal_from_the_start() {
        let narrow = |wide: &[f64]| wide.iter().map(|x| *x as f32).collect::<std::vec::Vec<f32>>();
        let mut furuta = Furuta::new();
        assert_eq!(Furuta::metric(&narrow(&furuta.observe()).try_into().unwrap()), 0.0);
        furuta.set_state(0.5, 0.0, 0.0, 0.0);
        let near = Furuta::metric(&narrow(&furuta.observe()).try_into().unwrap());
        // Half a radian of two, to an encoder's count of 2 pi / 2048.
        assert!((near - 0.75).abs() < 0.002, "{near}");
        assert_eq!(Cartpole::metric(&[0.0, 1.0, 0.0, 5.0, 5.0]), 1.0);
        assert_eq!(Cartpole::metric(&[0.0, 0.89, 0.4, 0.0, 0.0]), 0.0);
        assert_eq!([Pendulum::metric(&[0.95, 0.0, 9.0]), Pendulum::metric(&[-1.0, 0.0, 0.0])], [1.0, 0.0]);
        assert_eq!(Quadrotor2d::metric(&[0.0; 7]), 1.0);
        assert_eq!(
            [Acrobot::metric(&[0.0, 0.0, 1.0, 1.0, 0.0, 0.0]), Acrobot::metric(&[0.0, 0.0, -1.0, -1.0, 0.0, 0.0])],
            [1.0, 0.0]
        );
        for far in [3.0, f32::INFINITY, f32::NAN] {
            assert_eq!([Cartpole::metric(&[far, 1.0, 0.0, 0.0, 0.0]), Quadrotor2d::metric(&[far; 7])], [0.0; 2]);
        }
        assert_eq!(Furuta::metric(&[0.0, f32::NAN, 0.0, 0.0, 0.0]), 0.0);
    }

    /// An encoder whose zero is off turns what is seen, and nothing of what happens.
    #[test]
    fn an_offset_is_of_the_encoder_alone() {
        let (mut plain, mut off) = (Furuta::new(), Furuta::new());
        off.set("pendulum_offset", 0.1).unwrap();
        off.set("arm_offset", -0.2).unwrap();
        for step in 0..200 {
            let voltage = if step % 60 < 30 { 4.0 } else { -4.0 };
            assert_eq!(plain.step(voltage), off.step(voltage));
        }
        let ([arm, cos, sin, ..], seen) = (plain.observe(), off.observe());
        assert!((seen[0] - (arm - 0.2)).abs() < 1e-12);
        let (s, c) = (libm::sin(0.1), libm::cos(0.1));
        assert!((seen[1] - (cos * c - sin * s)).abs() < 1e-12 && (seen[2] - (sin * c + cos * s)).abs() < 1e-12);
        assert_eq!(plain.observe()[3..], seen[3..]);
    }
}
