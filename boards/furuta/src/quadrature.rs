//! A quadrature decoder in software, for chips without enough decoders in hardware: sampled at a fixed rate.
//!
//! Sampling in a timer's interrupt, in place of an interrupt at every edge, gives the processor the same load whatever
//! the wires carry: a loose encoder cable cannot keep the controller from its deadline. Its price is a highest speed:
//! one count a sample. A sample in which both lines have changed has lost counts, and is counted.
//!
//! Integers only, no panics, about ten instructions a sample.

/// Counts of one encoder; forward is the direction in which A leads B.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quadrature {
    /// Position within the four states of the two lines.
    phase: u8,
    counts: u16,
    lost: u16,
}

impl Quadrature {
    /// A decoder at 0 counts; the first sample may count one, or one as lost: see [`Quadrature::start`].
    pub const fn new() -> Self {
        Self { phase: 0, counts: 0, lost: 0 }
    }

    /// Takes the lines as they stand for the start.
    pub fn start(&mut self, a: bool, b: bool) {
        *self = Self { phase: phase(a, b), ..Self::new() };
    }

    /// Takes in one sample of the two lines.
    #[inline]
    pub fn sample(&mut self, a: bool, b: bool) {
        let phase = phase(a, b);
        match phase.wrapping_sub(self.phase) & 3 {
            1 => self.counts = self.counts.wrapping_add(1),
            3 => self.counts = self.counts.wrapping_sub(1),
            2 => self.lost = self.lost.wrapping_add(1),
            _ => {}
        }
        self.phase = phase;
    }

    /// The counts, four to a line of the encoder's disc; they wrap around.
    #[inline]
    pub fn counts(&self) -> u16 {
        self.counts
    }

    /// Samples that have lost counts, wrapping around: the encoder was faster than the sampling, or a line is noisy.
    #[inline]
    pub fn lost(&self) -> u16 {
        self.lost
    }
}

/// The lines' state as a number that goes 0, 1, 2, 3, 0 forwards: Gray code to binary.
#[inline]
fn phase(a: bool, b: bool) -> u8 {
    (b as u8) << 1 | (a ^ b) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of a disc at `count`: A leads B by a quarter of a period.
    fn lines(count: i32) -> (bool, bool) {
        (matches!(count.rem_euclid(4), 1 | 2), matches!(count.rem_euclid(4), 2 | 3))
    }

    #[test]
    fn counts_follow_any_walk_of_single_steps() {
        let mut decoder = Quadrature::new();
        let (mut place, mut word) = (0i32, 1u32);
        decoder.start(lines(0).0, lines(0).1);
        for _ in 0..100_000 {
            word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Two thirds forwards, so that the counter wraps.
            place += [1, 1, -1, 1, 0, 1][(word >> 16) as usize % 6];
            let (a, b) = lines(place);
            decoder.sample(a, b);
            assert_eq!((decoder.counts(), decoder.lost()), (place as u16, 0));
        }
        assert!(place > 40_000, "{place}");
    }

    #[test]
    fn a_jump_of_two_is_lost_and_said() {
        let mut decoder = Quadrature::new();
        decoder.start(true, true);
        decoder.sample(false, false);
        assert_eq!((decoder.counts(), decoder.lost()), (0, 1));
        decoder.sample(true, false);
        assert_eq!((decoder.counts(), decoder.lost()), (1, 1));
    }
}
