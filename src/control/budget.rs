//! The budget of time: which plan a decision may take, chosen before it starts.
//!
//! Time is counted in ticks of whatever timer the chip offers (cycles, instructions, microseconds), in `u32` that wrap. A
//! decision by a plan of `n` steps costs `fixed + n per_step` ticks ([`Costs`]), given by who knows the chip or measured
//! by a dry run. [`Budget::choose`] takes the longest plan that ends before the deadline, so a decision that starts is
//! never cut short, and the same times give the same plans. A period in which the longest plan has no room is refused at
//! the start, with the number of steps that would fit: a robot whose ordinary decision is late is not started.
//!
//! Integers only, no panics, no allocation; a multiplication and a comparison a plan.

use crate::policy::Menu;

/// Ticks that a decision takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Costs {
    /// Whatever the plan: normaliser, state part, noise, squash, and the rest of the control step.
    pub fixed: u32,
    /// For each step of the plan.
    pub per_step: u32,
}

impl Costs {
    /// Ticks of a decision of `steps` steps; the largest number where they do not fit 32 bits.
    pub const fn of(&self, steps: usize) -> u32 {
        let steps = if steps < u32::MAX as usize { steps as u32 } else { u32::MAX };
        self.fixed.saturating_add(self.per_step.saturating_mul(steps))
    }

    /// The costs of which two measurements, `(steps, ticks)` each, are samples, and an eighth more for what varies.
    ///
    /// Two of the same number of steps (a menu of one plan) leave everything in the fixed part.
    pub fn from_runs(short: (usize, u32), long: (usize, u32)) -> Self {
        let steps = u32::try_from(long.0.saturating_sub(short.0)).unwrap_or(u32::MAX);
        let more = |ticks: u32| ticks.saturating_add(ticks.div_ceil(8));
        let longer = long.1.saturating_sub(short.1);
        let per_step = if steps == 0 { 0 } else { longer.div_ceil(steps) };
        let shortest = u32::try_from(short.0).unwrap_or(u32::MAX).saturating_mul(per_step);
        let slower = if long.1 > short.1 { long.1 } else { short.1 };
        let fixed = if steps == 0 { slower } else { short.1.saturating_sub(shortest) };
        Self { fixed: more(fixed), per_step: more(per_step) }
    }
}

/// The control period in time, and what a decision takes of it; all in ticks of the chip's timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Timing {
    /// Ticks of a control period, below 2^30.
    pub period: u32,
    /// Ticks from the start of the period until the command must be there, at most the period.
    pub deadline: u32,
    /// What a decision takes.
    pub costs: Costs,
}

/// Why a timing is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum TimingError {
    /// The period is zero, or 2^30 ticks or longer.
    Period,
    /// The deadline is zero or after the end of the period.
    Deadline,
    /// The longest plan does not end before the deadline.
    Budget {
        /// Steps of that plan.
        steps: usize,
        /// Ticks it needs.
        needed: u32,
        /// Ticks it has.
        available: u32,
        /// The largest number of steps that would fit, zero where none does; `None` where the costs of several steps do
        /// not say what one takes, as after a dry run of a menu of one plan.
        fits: Option<usize>,
    },
}

/// The menu of plans with its prices.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    menu: Menu,
    timing: Timing,
}

impl Budget {
    /// Checks that the longest plan of the menu fits.
    pub fn new(menu: Menu, timing: Timing) -> Result<Self, TimingError> {
        let Timing { period, deadline, costs } = timing;
        if period == 0 || period >= 1 << 30 {
            return Err(TimingError::Period);
        }
        if deadline == 0 || deadline > period {
            return Err(TimingError::Deadline);
        }
        let steps = menu.steps(menu.len());
        let needed = costs.of(steps);
        if needed > deadline {
            let room = deadline.saturating_sub(costs.fixed);
            let fits = match room.checked_div(costs.per_step) {
                Some(fits) => Some(fits as usize),
                // What one step takes was measured itself.
                None if steps <= 1 => Some(0),
                None => None,
            };
            return Err(TimingError::Budget { steps, needed, available: deadline, fits });
        }
        Ok(Self { menu, timing })
    }

    /// The timing.
    pub fn timing(&self) -> &Timing {
        &self.timing
    }

    /// Index of the longest plan that ends before the deadline when it starts `elapsed` ticks into the period; `None` where
    /// there is not even time for the shortest.
    pub fn choose(&self, elapsed: u32) -> Option<usize> {
        let left = self.timing.deadline.checked_sub(elapsed)?;
        (0..self.menu.len()).rev().find(|index| self.timing.costs.of(self.menu.steps(*index)) <= left)
    }
}

impl core::fmt::Display for TimingError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Period => f.write_str("the control period must have at least one and fewer than 2^30 timer ticks"),
            Self::Deadline => f.write_str("the deadline must lie inside the control period"),
            Self::Budget { steps, needed, available, fits } => {
                write!(f, "a decision of {steps} steps takes {needed} timer ticks and has {available}: ")?;
                match fits {
                    None => {
                        f.write_str("give it a menu of two plans, and their dry run tells how many steps would fit")
                    }
                    Some(0) => f.write_str("not even one step fits, use a longer period or a smaller network"),
                    Some(1) => f.write_str("1 step would fit, export the policy with that"),
                    Some(fits) => write!(f, "{fits} steps would fit, export the policy with so many"),
                }
            }
        }
    }
}

impl core::error::Error for TimingError {}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    const MENU: Menu = Menu::new(&[1, 2, 5]).unwrap();
    const COSTS: Costs = Costs { fixed: 100, per_step: 200 };

    #[test]
    fn the_longest_plan_that_fits_is_chosen() {
        let budget = Budget::new(MENU, Timing { period: 2000, deadline: 1500, costs: COSTS }).unwrap();
        for (elapsed, plan) in [
            (0, Some(2)),
            (400, Some(2)),
            (401, Some(1)),
            (1000, Some(1)),
            (1001, Some(0)),
            (1200, Some(0)),
            (1201, None),
            (1501, None),
            (u32::MAX, None),
        ] {
            assert_eq!(budget.choose(elapsed), plan, "{elapsed}");
        }
    }

    #[test]
    fn a_period_that_is_too_short_is_refused_with_what_would_fit() {
        let refused = |deadline, costs| Budget::new(MENU, Timing { period: 2000, deadline, costs }).unwrap_err();
        let error = |fits, available| TimingError::Budget { steps: 5, needed: 1100, available, fits: Some(fits) };
        assert_eq!(refused(1099, COSTS), error(4, 1099));
        assert_eq!(refused(300, COSTS), error(1, 300));
        assert_eq!(refused(299, COSTS), error(0, 299));
        assert_eq!(refused(99, COSTS), error(0, 99));
        assert!(refused(700, COSTS).to_string().contains("3 steps would fit"));
        let heavy = Costs { fixed: 3000, per_step: 0 };
        assert_eq!(refused(2000, heavy), TimingError::Budget { steps: 5, needed: 3000, available: 2000, fits: None });
        // A dry run of one plan knows what that takes, and of its steps only where it has one.
        let refused_single = |steps| {
            let costs = Costs::from_runs((steps, 4000), (steps, 4000));
            let menu = Menu::single(steps);
            Budget::new(menu, Timing { period: 2000, deadline: 2000, costs }).unwrap_err()
        };
        let error = |steps, fits| TimingError::Budget { steps, needed: 4500, available: 2000, fits };
        assert_eq!((refused_single(1), refused_single(5)), (error(1, Some(0)), error(5, None)));
        assert!(refused_single(5).to_string().contains("menu of two plans"));
        let endless = Costs { fixed: 1, per_step: u32::MAX };
        assert_eq!(
            refused(2000, endless),
            TimingError::Budget { steps: 5, needed: u32::MAX, available: 2000, fits: Some(0) }
        );
        assert_eq!(refused(0, COSTS), TimingError::Deadline);
        assert_eq!(refused(2001, COSTS), TimingError::Deadline);
        for period in [0, 1 << 30] {
            let refused = Budget::new(MENU, Timing { period, deadline: 1, costs: COSTS }).unwrap_err();
            assert_eq!(refused, TimingError::Period);
        }
    }

    #[test]
    fn measured_costs_cover_what_was_measured() {
        for (short, long) in
            [((1, 300), (5, 1100)), ((1, 7), (3, 8)), ((2, 1 << 31), (4, u32::MAX)), ((1, 90), (5, 80))]
        {
            let costs = Costs::from_runs(short, long);
            for (steps, ticks) in [short, long] {
                assert!(costs.of(steps) >= ticks, "{costs:?} {steps} {ticks}");
            }
        }
        assert_eq!(Costs::from_runs((1, 300), (5, 1100)), Costs { fixed: 113, per_step: 225 });
        assert_eq!(Costs::from_runs((3, 790), (3, 800)), Costs { fixed: 900, per_step: 0 });
    }
}
