//! The controller's counts of time: which period is due for a decision, what is left of it, and what was left at least.
//!
//! Integers but for the share of a straight line; no panics, no allocation.

use super::Budget;

/// Counts periods, and times them where there is a budget.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Control periods to a decision.
    native: u16,
    /// Control periods until the next decision is due, and since the last one.
    until: u16,
    since: u16,
    /// Whether a decision is due.
    pending: bool,
    budget: Option<Budget>,
    /// The timer at the start of this period; none before the first.
    due: Option<u32>,
    /// Least ticks left before a deadline.
    least: i32,
    pub(super) steps: u8,
}

impl Pace {
    pub(super) fn new(native: u16, budget: Option<Budget>) -> Self {
        Self { native, until: 0, since: 0, pending: false, budget, due: None, least: i32::MAX, steps: 0 }
    }

    /// The next period is due for a decision, and what was counted is forgotten.
    pub(super) fn restart(&mut self) {
        *self = Self::new(self.native, self.budget);
    }

    /// Begins a period; whether at least one did not come.
    pub(super) fn begin(&mut self, due: u32) -> bool {
        let before = self.due.replace(due);
        match (self.budget, before) {
            (Some(budget), Some(before)) => {
                let period = budget.timing().period;
                due.wrapping_sub(before) > period.saturating_add(period / 2)
            }
            _ => false,
        }
    }

    /// Counts a period in which the policy drives.
    pub(super) fn count(&mut self) {
        if self.until == 0 {
            self.until = self.native;
            self.pending = true;
        }
        self.until = self.until.saturating_sub(1);
        self.since = self.since.saturating_add(1);
    }

    /// Whether a decision is due, in this period or since one in which there was no sample or no time.
    pub(super) fn is_due(&self) -> bool {
        self.pending
    }

    /// The plan for what is left of the period.
    pub(super) fn choose(&self, now: u32) -> Option<usize> {
        match self.budget {
            Some(budget) => budget.choose(self.elapsed(now)),
            None => Some(usize::MAX),
        }
    }

    pub(super) fn decided(&mut self, steps: usize) {
        (self.pending, self.since) = (false, 1);
        self.steps = u8::try_from(steps).unwrap_or(u8::MAX);
    }

    /// How far a straight line from the last action but one to the last has come; none at its end.
    pub(super) fn share(&self) -> Option<f32> {
        (self.since < self.native).then(|| f32::from(self.since) / f32::from(self.native))
    }

    /// Ends a period; whether it ended after its deadline.
    pub(super) fn end(&mut self, now: u32) -> bool {
        let Some(budget) = self.budget else { return false };
        let elapsed = i32::try_from(self.elapsed(now)).unwrap_or(i32::MAX);
        let left = (budget.timing().deadline as i32).saturating_sub(elapsed);
        self.least = self.least.min(left);
        left < 0
    }

    /// Ticks since the period began; a period that begins in the future began just now.
    fn elapsed(&self, now: u32) -> u32 {
        let elapsed = now.wrapping_sub(self.due.unwrap_or(now));
        if elapsed > i32::MAX as u32 { 0 } else { elapsed }
    }

    /// The least ticks left in 1/1024 of the period.
    pub(super) fn slack(&self) -> i16 {
        let Some(budget) = self.budget else { return 0 };
        let unit = (budget.timing().period / 1024).max(1) as i32;
        (self.least / unit).clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16
    }
}
