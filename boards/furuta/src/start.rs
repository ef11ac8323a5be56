//! The start: nothing moves until a person has pressed the emergency stop and let it go, with the pendulum at rest.
//!
//! The stop is the only button. Pressing it stops; releasing it does not start by itself what was running, it starts the
//! procedure that a first start goes through as well: for half a second neither joint may move, and where they then
//! stand is the zero of both angles. A robot that does not come to rest within five seconds wants the button again. Thus a
//! chip that was reset, by the watchdog for instance, never starts the motor on its own.
//!
//! Integers only, no panics.

use crate::TICK_HZ;

/// The button must be down for this long, which no contact bounces: 0.1 s.
const PRESSED: u32 = TICK_HZ / 10;
/// Both joints must stand for this long: 0.5 s.
const STILL: u32 = TICK_HZ / 2;
/// They have this long to come to rest: 5 s.
const PATIENCE: u32 = 5 * TICK_HZ;
/// Counts by which a joint that stands may move: 0.35 degrees.
const MARGIN: u16 = 2;

/// What a tick of the procedure asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Wait,
    /// Both angles are to be set to their zeros: the robot stands here, or has moved since.
    Zero,
    /// The motor is to be started.
    Go,
}

/// How far the procedure is; times in ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// Nobody has pressed the button.
    #[default]
    Waiting,
    /// The button is down for so long.
    Pressed(u32),
    /// The button was let go.
    Released {
        /// How long ago.
        since: u32,
        /// How long both joints have stood.
        still: u32,
        /// Where.
        at: [u16; 2],
    },
}

impl Start {
    /// Takes in one tick: the button and the raw counts.
    pub fn tick(&mut self, pressed: bool, counts: [u16; 2]) -> Step {
        match *self {
            Self::Waiting | Self::Released { .. } if pressed => *self = Self::Pressed(1),
            Self::Waiting => {}
            Self::Pressed(ticks) if pressed => *self = Self::Pressed(ticks.saturating_add(1)),
            Self::Pressed(PRESSED..) => {
                *self = Self::Released { since: 0, still: 0, at: counts };
                return Step::Zero;
            }
            Self::Pressed(_) | Self::Released { since: PATIENCE.., .. } => *self = Self::Waiting,
            Self::Released { still: STILL.., .. } => {
                *self = Self::Waiting;
                return Step::Go;
            }
            Self::Released { since, still, at } => {
                let moved = counts.iter().zip(at).any(|(count, at)| distance(*count, at) > MARGIN);
                let (still, at) = if moved { (0, counts) } else { (still + 1, at) };
                *self = Self::Released { since: since + 1, still, at };
                return if moved { Step::Zero } else { Step::Wait };
            }
        }
        Step::Wait
    }
}

/// Between two counters that wrap.
fn distance(a: u16, b: u16) -> u16 {
    a.wrapping_sub(b).min(b.wrapping_sub(a))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// The ticks at which the procedure asked for something, for a button that is down from tick `down` to `up`.
    fn run(down: u32, up: u32, ticks: u32, counts: impl Fn(u32) -> [u16; 2]) -> Vec<(u32, Step)> {
        let mut start = Start::default();
        let steps = (0..ticks).map(|tick| (tick, start.tick((down..up).contains(&tick), counts(tick))));
        steps.filter(|(_, step)| *step != Step::Wait).collect()
    }

    #[test]
    fn only_a_press_and_a_release_start_a_robot_that_stands() {
        let stands = |_| [0, 0xffff];
        assert_eq!(run(0, 0, 10_000, stands), []);
        assert_eq!(run(10, 20_000, 20_000, stands), []);
        // A contact that bounces.
        assert_eq!(run(10, 10 + PRESSED - 1, 10_000, stands), []);
        let up = 10 + PRESSED;
        assert_eq!(run(10, up, 10_000, stands), [(up, Step::Zero), (up + STILL + 1, Step::Go)]);
    }

    #[test]
    fn a_pendulum_that_swings_is_waited_for_and_then_given_up() {
        let up = 10 + PRESSED;
        // Over the counter's wrap, until tick 1000 and for ever.
        let swings =
            |until: u32| move |tick: u32| [0, if tick < until { (tick as u16 % 8).wrapping_sub(4) } else { 4 }];
        let steps = run(10, up, 10_000, swings(1000));
        assert_eq!(steps.last().map(|last| last.1), Some(Step::Go));
        assert!((1000 + STILL - 8..1000 + STILL + 8).contains(&steps.last().unwrap().0), "{steps:?}");
        let steps = run(10, up, 10_000, swings(u32::MAX));
        assert!(steps.iter().all(|(tick, step)| *step == Step::Zero && *tick <= up + PATIENCE), "{steps:?}");
    }

    #[test]
    fn a_robot_that_trembles_by_a_count_stands() {
        let up = 10 + PRESSED;
        let steps = run(10, up, 10_000, |tick| [tick as u16 % 2, 7]);
        assert_eq!(steps, [(up, Step::Zero), (up + STILL + 1, Step::Go)]);
    }
}
