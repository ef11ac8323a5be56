//! Both encoders sampled in a timer's interrupt, and the control tick counted from the samples.

use crate::{Quadrature, Ticks};

/// The decoders of both encoders and the divider that makes control ticks of samples.
#[derive(Debug)]
pub struct Sampler {
    arm: Quadrature,
    pendulum: Quadrature,
    samples_a_tick: u32,
    /// Samples until the next tick; `None` before the first sample.
    left: Option<u32>,
}

impl Sampler {
    /// Every `samples_a_tick`-th sample is a control tick.
    pub const fn new(samples_a_tick: u32) -> Self {
        Self { arm: Quadrature::new(), pendulum: Quadrature::new(), samples_a_tick, left: None }
    }

    /// Takes in one sample: from bit 0 on the arm's A and B, the pendulum's A and B. `clock` is read at a tick.
    #[inline]
    pub fn sample(&mut self, lines: u32, clock: impl FnOnce() -> u32, ticks: &Ticks) {
        let line = |bit: u32| lines >> bit & 1 != 0;
        let Some(left) = self.left else {
            self.arm.start(line(0), line(1));
            self.pendulum.start(line(2), line(3));
            self.left = Some(self.samples_a_tick);
            return;
        };
        self.arm.sample(line(0), line(1));
        self.pendulum.sample(line(2), line(3));
        if left > 1 {
            self.left = Some(left - 1);
            return;
        }
        self.left = Some(self.samples_a_tick);
        let lost = self.arm.lost().wrapping_add(self.pendulum.lost());
        ticks.record(clock(), self.arm.counts(), self.pendulum.counts(), lost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tick;

    #[test]
    fn every_fourth_sample_is_a_tick_with_the_counts_so_far() {
        let ticks = Ticks::new();
        let mut sampler = Sampler::new(4);
        // The first sample says where the lines stand: the arm's both high.
        let walk = [0b0011, 0b0010, 0b0110, 0b1110, 0b1010, 0b1010, 0b1011, 0b1011];
        for (place, lines) in walk.into_iter().enumerate() {
            sampler.sample(lines, || place as u32, &ticks);
        }
        // Arm: A falls with B high, forwards; A rises again, backwards. Pendulum: A, B rise and A falls, three forwards.
        assert_eq!(ticks.newest(), Tick { number: 1, due: 4, counts: [1, 3], lost: 0 });
        sampler.sample(0b1000, || 8, &ticks);
        // Both of the arm's lines have changed at once.
        assert_eq!(ticks.newest(), Tick { number: 2, due: 8, counts: [0, 3], lost: 1 });
    }
}
