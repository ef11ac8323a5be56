//! Outputs and the stop: a signed command to the duty of an H-bridge, and the emergency stop's input.
//!
//! [`PhaseEnable`] is for drivers with one input for the direction and one for the duty, [`TwoPwm`] for those with two
//! inputs, both of which are pulsed. When the direction turns, the duty is taken off before. A command that is not a
//! number drives nothing. No panics, no allocation, nothing waits.

use embedded_hal::digital::{InputPin, OutputPin, PinState};
use embedded_hal::pwm::SetDutyCycle;

/// How a command becomes a duty.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Scale {
    full: f32,
    least: f32,
    dead: f32,
}

impl Scale {
    /// `full`: magnitude of the command at full duty, the supply's voltage for instance.
    pub const fn new(full: f32) -> Self {
        Self { full, least: 0.0, dead: 0.0 }
    }

    /// Commands below this magnitude are zero.
    pub const fn least(self, least: f32) -> Self {
        Self { least, ..self }
    }

    /// Share of the full duty, from 0 to 1, at which the motor just does not move: every command but zero starts there.
    pub const fn dead_band(self, dead: f32) -> Self {
        Self { dead, ..self }
    }

    /// Whether full scale, least command and dead band are numbers in their ranges.
    pub fn is_sound(&self) -> bool {
        let Self { full, least, dead } = *self;
        full > 0.0 && full.is_finite() && least >= 0.0 && least < full && (0.0..1.0).contains(&dead)
    }

    /// The duty of a command where `max` is the full one, and whether it drives backwards; zero for what is no number.
    pub fn duty(&self, command: f32, max: u16) -> (u16, bool) {
        let size = command.abs();
        if !self.is_sound() || !size.is_finite() || size == 0.0 || size < self.least {
            return (0, false);
        }
        let share = self.dead + (1.0 - self.dead) * (size / self.full);
        let share = if share < 1.0 { share } else { 1.0 };
        // A conversion from float holds at the integer's ends.
        let duty = (share * f32::from(max) + 0.5) as u16;
        (duty.min(max), command < 0.0)
    }
}

/// An output that did not take its value; raise [`Reason::Driver`](crate::control::Reason::Driver).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum DriveError {
    /// A duty.
    Duty,
    /// The direction.
    Direction,
}

fn set(output: &mut impl SetDutyCycle, duty: u16) -> Result<(), DriveError> {
    output.set_duty_cycle(duty).map_err(|_| DriveError::Duty)
}

/// A driver with a direction and a duty. Whether the motor coasts or brakes while it is off is the driver's own mode.
#[derive(Debug)]
pub struct PhaseEnable<P, D> {
    duty: P,
    direction: D,
    scale: Scale,
    backwards: Option<bool>,
}

impl<P: SetDutyCycle, D: OutputPin> PhaseEnable<P, D> {
    /// The direction's pin is high forwards, for a positive command.
    pub fn new(duty: P, direction: D, scale: Scale) -> Self {
        Self { duty, direction, scale, backwards: None }
    }

    /// Drives the motor by a command in the scale's unit.
    pub fn drive(&mut self, command: f32) -> Result<(), DriveError> {
        let (duty, backwards) = self.scale.duty(command, self.duty.max_duty_cycle());
        if duty > 0 && self.backwards != Some(backwards) {
            set(&mut self.duty, 0)?;
            self.backwards = None;
            self.direction.set_state(PinState::from(!backwards)).map_err(|_| DriveError::Direction)?;
            self.backwards = Some(backwards);
        }
        set(&mut self.duty, duty)
    }

    /// Takes the duty off.
    pub fn release(&mut self) -> Result<(), DriveError> {
        set(&mut self.duty, 0)
    }
}

/// What a motor does while its pulse is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Decay {
    /// Coasts: both inputs low.
    Coast,
    /// Brakes: both inputs high. The speed then follows the duty more linearly.
    Brake,
}

/// A driver with two inputs: one of them high drives forwards, the other backwards, none coasts, both brake.
#[derive(Debug)]
pub struct TwoPwm<A, B> {
    forwards: A,
    backwards: B,
    scale: Scale,
    decay: Decay,
}

impl<A: SetDutyCycle, B: SetDutyCycle> TwoPwm<A, B> {
    /// The two inputs, whose full duties may differ.
    pub fn new(forwards: A, backwards: B, scale: Scale, decay: Decay) -> Self {
        Self { forwards, backwards, scale, decay }
    }

    /// Drives the motor by a command in the scale's unit; zero coasts or brakes as the pulses' off time does.
    pub fn drive(&mut self, command: f32) -> Result<(), DriveError> {
        let (_, back) = self.scale.duty(command, u16::MAX);
        let (max_a, max_b) = (self.forwards.max_duty_cycle(), self.backwards.max_duty_cycle());
        match (self.decay, back) {
            // The input that rests is set first, so that at no time the motor is driven the other way.
            (Decay::Coast, false) => {
                set(&mut self.backwards, 0)?;
                set(&mut self.forwards, self.scale.duty(command, max_a).0)
            }
            (Decay::Coast, true) => {
                set(&mut self.forwards, 0)?;
                set(&mut self.backwards, self.scale.duty(command, max_b).0)
            }
            (Decay::Brake, false) => {
                set(&mut self.forwards, max_a)?;
                set(&mut self.backwards, max_b - self.scale.duty(command, max_b).0)
            }
            (Decay::Brake, true) => {
                set(&mut self.backwards, max_b)?;
                set(&mut self.forwards, max_a - self.scale.duty(command, max_a).0)
            }
        }
    }

    /// Lets the motor coast.
    pub fn coast(&mut self) -> Result<(), DriveError> {
        let first = set(&mut self.forwards, 0);
        set(&mut self.backwards, 0).and(first)
    }

    /// Shorts the motor, which brakes it.
    pub fn brake(&mut self) -> Result<(), DriveError> {
        let (max_a, max_b) = (self.forwards.max_duty_cycle(), self.backwards.max_duty_cycle());
        let first = set(&mut self.forwards, max_a);
        set(&mut self.backwards, max_b).and(first)
    }
}

/// The emergency stop: a normally-closed switch, so that a broken wire stops the robot too.
#[derive(Debug)]
pub struct StopInput<P> {
    pin: P,
    closed: PinState,
}

impl<P: InputPin> StopInput<P> {
    /// A switch to ground with a pull-up on the pin: low while it is closed, high when it is pressed.
    pub fn to_ground(pin: P) -> Self {
        Self { pin, closed: PinState::Low }
    }

    /// A switch to the supply with a pull-down on the pin: high while it is closed, low when it is pressed.
    pub fn to_supply(pin: P) -> Self {
        Self { pin, closed: PinState::High }
    }

    /// Whether it is pressed, or its wire broken, or its pin does not answer.
    pub fn pressed(&mut self) -> bool {
        let closed = match self.closed {
            PinState::Low => self.pin.is_low(),
            PinState::High => self.pin.is_high(),
        };
        !closed.unwrap_or(false)
    }
}

impl core::fmt::Display for DriveError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Duty => "the motor's duty cycle could not be set",
            Self::Direction => "the motor's direction could not be set",
        })
    }
}

impl core::error::Error for DriveError {}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use embedded_hal_mock::eh1::MockError;
    use embedded_hal_mock::eh1::digital::{Mock as Pin, State, Transaction as Level};
    use embedded_hal_mock::eh1::pwm::{Mock as Pwm, Transaction as Duty};
    use std::io::ErrorKind;

    const SCALE: Scale = Scale::new(10.0);

    #[test]
    fn the_direction_turns_only_while_the_duty_is_off() {
        let max = Duty::max_duty_cycle(1000);
        let duty = Duty::set_duty_cycle;
        let mut pwm = Pwm::new(
            &[
                [max.clone(), duty(0), duty(500)].as_slice(),
                &[max.clone(), duty(1000)],
                &[max.clone(), duty(0)],
                &[max.clone(), duty(250)],
                &[max.clone(), duty(0), duty(100)],
                &[max.clone(), duty(0)],
                &[duty(0)],
            ]
            .concat(),
        );
        let mut pin = Pin::new(&[Level::set(State::High), Level::set(State::Low)]);
        let mut motor = PhaseEnable::new(pwm.clone(), pin.clone(), SCALE);
        // Half, more than full, zero, the same direction again, backwards, not a number, released.
        for command in [5.0, 99.0, 0.0, 2.5, -1.0, f32::NAN] {
            motor.drive(command).unwrap();
        }
        motor.release().unwrap();
        pwm.done();
        pin.done();
    }

    #[test]
    fn a_failed_output_is_reported_and_the_direction_set_again() {
        let failed = MockError::Io(ErrorKind::NotConnected);
        let max = Duty::max_duty_cycle(100);
        let duty = Duty::set_duty_cycle;
        let mut pwm = Pwm::new(
            &[
                [max.clone(), duty(0).with_error(failed.clone())].as_slice(),
                &[max.clone(), duty(0)],
                &[max.clone(), duty(0), duty(50)],
            ]
            .concat(),
        );
        let mut pin = Pin::new(&[Level::set(State::High).with_error(failed), Level::set(State::High)]);
        let mut motor = PhaseEnable::new(pwm.clone(), pin.clone(), SCALE);
        assert_eq!(motor.drive(5.0), Err(DriveError::Duty));
        assert_eq!(motor.drive(5.0), Err(DriveError::Direction));
        assert_eq!(motor.drive(5.0), Ok(()));
        pwm.done();
        pin.done();
    }

    /// What two inputs of 100 and 200 steps get for each command.
    #[test]
    fn two_inputs_coast_or_brake() {
        for (decay, command, a, b) in [
            (Decay::Coast, 5.0, 50, 0),
            (Decay::Coast, -5.0, 0, 100),
            (Decay::Coast, 0.0, 0, 0),
            (Decay::Coast, f32::INFINITY, 0, 0),
            (Decay::Brake, 5.0, 100, 100),
            (Decay::Brake, -5.0, 50, 200),
            (Decay::Brake, 0.0, 100, 200),
            (Decay::Brake, 50.0, 100, 0),
        ] {
            let mut forwards = Pwm::new(&[Duty::max_duty_cycle(100), Duty::set_duty_cycle(a)]);
            let mut backwards = Pwm::new(&[Duty::max_duty_cycle(200), Duty::set_duty_cycle(b)]);
            TwoPwm::new(forwards.clone(), backwards.clone(), SCALE, decay).drive(command).unwrap();
            forwards.done();
            backwards.done();
        }
        let mut forwards = Pwm::new(&[Duty::set_duty_cycle(0), Duty::max_duty_cycle(100), Duty::set_duty_cycle(100)]);
        let mut backwards = Pwm::new(&[Duty::set_duty_cycle(0), Duty::max_duty_cycle(200), Duty::set_duty_cycle(200)]);
        let mut motor = TwoPwm::new(forwards.clone(), backwards.clone(), SCALE, Decay::Coast);
        motor.coast().unwrap();
        motor.brake().unwrap();
        forwards.done();
        backwards.done();
    }

    #[test]
    fn scales_hold_least_command_and_dead_band() {
        let scale = SCALE.least(0.5).dead_band(0.2);
        for (command, duty) in [
            (0.0, (0, false)),
            (0.4, (0, false)),
            (0.5, (240, false)),
            (-5.0, (600, true)),
            (10.0, (1000, false)),
            (-1e30, (1000, true)),
            (f32::NAN, (0, false)),
            (f32::NEG_INFINITY, (0, false)),
        ] {
            assert_eq!(scale.duty(command, 1000), duty, "{command}");
        }
        assert_eq!(SCALE.duty(10.0, u16::MAX), (u16::MAX, false));
        let nan = f32::NAN;
        for bad in [
            Scale::new(0.0),
            Scale::new(nan),
            Scale::new(-1.0),
            SCALE.dead_band(1.0),
            SCALE.dead_band(nan),
            SCALE.least(nan),
            SCALE.least(11.0),
        ] {
            assert!(!bad.is_sound());
            assert_eq!(bad.duty(3.0, 1000), (0, false), "{bad:?}");
        }
    }

    #[test]
    fn a_broken_wire_is_a_stop() {
        let failed = MockError::Io(ErrorKind::NotConnected);
        let reads = [Level::get(State::Low), Level::get(State::High), Level::get(State::Low).with_error(failed)];
        let mut pin = Pin::new(&reads);
        let mut stop = StopInput::to_ground(pin.clone());
        assert_eq!([(); 3].map(|()| stop.pressed()), [false, true, true]);
        pin.done();
        let mut pin = Pin::new(&reads);
        let mut stop = StopInput::to_supply(pin.clone());
        assert_eq!([(); 3].map(|()| stop.pressed()), [true, false, true]);
        pin.done();
    }
}
