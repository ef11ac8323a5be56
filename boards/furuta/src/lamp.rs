//! What the lamp says, without a cable or a log.
//!
//! | lamp | meaning |
//! |---|---|
//! | on | the policy drives |
//! | slow, 1 s on and 1 s off | ready: press the stop and let it go |
//! | quick, 2.5 a second | the stop was let go: the motor starts when both joints have stood for half a second |
//! | n flashes and a pause | stopped for reason n (`flowlet::control::Reason`) |
//! | flutter, 10 a second | the policy is refused; nothing but a new image helps |
//!
//! Integers only, no panics.

use crate::start::Start;
use flowlet::control::{State, Status};

/// Whether the lamp is lit at tick number `tick`.
pub fn lit(tick: u32, status: &Status, start: &Start) -> bool {
    // A tenth of a second, twice.
    let fifth = tick / 100;
    match (start, status.state) {
        (_, State::Running | State::Holding) => true,
        (Start::Released { .. }, _) => fifth.is_multiple_of(2),
        (_, State::Idle) => fifth % 10 < 5,
        (_, State::Fault | State::Stopped) => {
            let flashes = status.fault.reason as u32;
            let place = fifth % (2 * flashes + 6);
            place < 2 * flashes && place.is_multiple_of(2)
        }
    }
}

/// The lamp of a robot whose policy is refused.
pub fn flutter(tick: u32) -> bool {
    (tick / 25).is_multiple_of(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowlet::control::{Fault, Reason};

    #[test]
    fn a_latched_fault_is_counted_out() {
        for reason in Reason::ALL.into_iter().skip(1) {
            let status =
                Status { state: State::Fault, fault: Fault::of(reason), glitches: 0, late: 0, steps: 0, slack: 0 };
            let period = 100 * (2 * reason as u32 + 6);
            let lamp = (0..period).map(|tick| lit(tick, &status, &Start::Waiting));
            let flashes = lamp.clone().zip(lamp.skip(1)).filter(|(now, next)| *now && !*next).count();
            assert_eq!(flashes, reason as usize);
        }
    }
}
