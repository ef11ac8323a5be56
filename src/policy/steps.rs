//! The step table: what a policy returns with other numbers of steps than its own.
//!
//! A program whose deadline is short chooses its plan from it. A view over the artefact; no panics, no allocation.

use super::artefact::STEP_ENTRY;
use crate::flow::Plan;

/// The measured return of plans with one number of steps, all else as in the artefact.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct StepEntry {
    /// Steps of the plan, 1 to [`Plan::MAX_STEPS`].
    pub steps: u32,
    /// Mean return of an episode played with single samples.
    pub mean_return: f32,
    /// Half the width of the mean's 95 % interval, at least 0.
    pub half_width: f32,
}

impl StepEntry {
    pub(super) fn words(&self) -> [u32; STEP_ENTRY] {
        [self.steps, self.mean_return.to_bits(), self.half_width.to_bits()]
    }

    fn of([steps, mean_return, half_width]: [u32; STEP_ENTRY]) -> Self {
        Self { steps, mean_return: f32::from_bits(mean_return), half_width: f32::from_bits(half_width) }
    }
}

/// The entries of a step table, the fewest steps first.
#[derive(Debug, Clone, Copy)]
pub struct StepTable<'a>(&'a [[u32; STEP_ENTRY]]);

impl<'a> StepTable<'a> {
    /// The table, where its steps ascend strictly and its numbers are finite.
    pub(super) fn checked(words: &'a [[u32; STEP_ENTRY]]) -> Option<Self> {
        let mut least = 1;
        for entry in Self(words) {
            let numbers = entry.mean_return.is_finite() && entry.half_width.is_finite() && entry.half_width >= 0.0;
            if !numbers || entry.steps < least || entry.steps > Plan::MAX_STEPS as u32 {
                return None;
            }
            least = entry.steps.saturating_add(1);
        }
        Some(Self(words))
    }
}

impl Iterator for StepTable<'_> {
    type Item = StepEntry;

    fn next(&mut self) -> Option<StepEntry> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(StepEntry::of(*first))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.0.len(), Some(self.0.len()))
    }
}

impl ExactSizeIterator for StepTable<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_that_do_not_ascend_are_refused() {
        let entry = |steps, mean_return: f32, half_width: f32| StepEntry { steps, mean_return, half_width }.words();
        let good = [entry(1, -3.5, 0.25), entry(2, -2.0, 0.0), entry(1000, 4e8, 1.0)];
        let table = StepTable::checked(&good).unwrap();
        assert_eq!((table.len(), table.map(|e| e.steps).sum::<u32>()), (3, 1003));
        assert_eq!(StepTable::checked(&[]).unwrap().len(), 0);
        for bad in [
            [entry(0, 0.0, 0.0), entry(1, 0.0, 0.0)],
            [entry(2, 0.0, 0.0), entry(2, 0.0, 0.0)],
            [entry(3, 0.0, 0.0), entry(2, 0.0, 0.0)],
            [entry(1, 0.0, 0.0), entry(1001, 0.0, 0.0)],
            [entry(1, f32::NAN, 0.0), entry(2, 0.0, 0.0)],
            [entry(1, 0.0, f32::INFINITY), entry(2, 0.0, 0.0)],
            [entry(1, 0.0, -1.0), entry(2, 0.0, 0.0)],
        ] {
            assert!(StepTable::checked(&bad).is_none(), "{bad:?}");
        }
    }
}
