//! What the tick's interrupt hands to the control loop: when the tick was, and the raw counts of both encoders.
//!
//! The interrupt writes, the loop reads; a reading that an interrupt has cut in two is repeated. Integers only, no
//! panics, no waiting in the interrupt. One core: the interrupt and the loop must not run at the same time.

use core::sync::atomic::{AtomicU32, Ordering, compiler_fence};

/// One control tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tick {
    /// Number of the tick; wraps around.
    pub number: u32,
    /// The board's clock when it was due, in its ticks.
    pub due: u32,
    /// Raw counts of the arm's and the pendulum's encoder.
    pub counts: [u16; 2],
    /// Samples that have lost counts since the start; stays 0 where hardware counts.
    pub lost: u16,
}

/// The newest tick, shared between the interrupt and the loop.
#[derive(Debug, Default)]
pub struct Ticks {
    number: AtomicU32,
    due: AtomicU32,
    /// Arm in the low half.
    counts: AtomicU32,
    lost: AtomicU32,
}

impl Ticks {
    /// Before the first tick.
    pub const fn new() -> Self {
        Self { number: AtomicU32::new(0), due: AtomicU32::new(0), counts: AtomicU32::new(0), lost: AtomicU32::new(0) }
    }

    /// Takes in a tick; for the interrupt's handler alone.
    #[inline]
    pub fn record(&self, due: u32, arm: u16, pendulum: u16, lost: u16) {
        self.due.store(due, Ordering::Relaxed);
        self.counts.store(u32::from(arm) | u32::from(pendulum) << 16, Ordering::Relaxed);
        self.lost.store(u32::from(lost), Ordering::Relaxed);
        let next = self.number.load(Ordering::Relaxed).wrapping_add(1);
        // One core needs the order of the program, no more.
        compiler_fence(Ordering::Release);
        self.number.store(next, Ordering::Relaxed);
    }

    /// The newest tick.
    pub fn newest(&self) -> Tick {
        loop {
            let number = self.number.load(Ordering::Relaxed);
            compiler_fence(Ordering::Acquire);
            let due = self.due.load(Ordering::Relaxed);
            let counts = self.counts.load(Ordering::Relaxed);
            let lost = self.lost.load(Ordering::Relaxed) as u16;
            compiler_fence(Ordering::Acquire);
            // An interrupt in between has changed the number.
            if self.number.load(Ordering::Relaxed) == number {
                return Tick { number, due, counts: [counts as u16, (counts >> 16) as u16], lost };
            }
        }
    }

    /// Waits for the tick after number `seen`.
    ///
    /// It spins: a sleeping core stops the cycle counter that the deadline is measured with.
    pub fn after(&self, seen: u32) -> Tick {
        while self.number.load(Ordering::Relaxed) == seen {
            core::hint::spin_loop();
        }
        self.newest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_tick_is_read_as_it_was_recorded() {
        let ticks = Ticks::new();
        assert_eq!(ticks.newest(), Tick::default());
        ticks.record(7, 0xfffe, 3, 0);
        ticks.record(u32::MAX, 1, 0x8000, 2);
        let tick = Tick { number: 2, due: u32::MAX, counts: [1, 0x8000], lost: 2 };
        assert_eq!((ticks.newest(), ticks.after(1)), (tick, tick));
    }
}
