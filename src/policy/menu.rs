//! The menu of plans: the numbers of steps among which a controller chooses before a decision starts.
//!
//! One network serves every plan; the plans differ in their steps alone, so a longer one costs more and decides better.
//! No panics, no allocation; every function is `const`, so that the memory of all time tables can stand in a type.

use super::Artefact;
use crate::flow::{Plan, Solver};

/// Numbers of steps, ascending; the last one is the artefact's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Menu {
    steps: [u16; Self::MAX],
    len: u8,
}

impl Menu {
    /// Most plans of a menu.
    pub const MAX: usize = 8;

    /// The menu of these numbers of steps; `None` unless there are one to [`MAX`](Self::MAX), ascending strictly, from 1
    /// to [`Plan::MAX_STEPS`].
    pub const fn new(steps: &[u16]) -> Option<Self> {
        if steps.is_empty() || steps.len() > Self::MAX {
            return None;
        }
        let mut menu = Self { steps: [0; Self::MAX], len: steps.len() as u8 };
        let mut least = 1;
        let mut i = 0;
        while i < steps.len() {
            if steps[i] < least || steps[i] as usize > Plan::MAX_STEPS {
                return None;
            }
            menu.steps[i] = steps[i];
            least = steps[i] + 1;
            i += 1;
        }
        Some(menu)
    }

    /// The menu of one plan; a number of steps out of range counts as the nearest.
    pub const fn single(steps: usize) -> Self {
        let mut menu = Self { steps: [0; Self::MAX], len: 1 };
        menu.steps[0] = if steps == 0 {
            1
        } else if steps > Plan::MAX_STEPS {
            Plan::MAX_STEPS as u16
        } else {
            steps as u16
        };
        menu
    }

    /// The plans whose return was measured (the artefact's step table) up to the artefact's own, and that one.
    ///
    /// Without a table they are 1, 2, 3, 5, 8, 13 and 21 steps, as far as they are below the artefact's own.
    pub fn of(artefact: &Artefact<'_>) -> Self {
        let own = artefact.plan().steps;
        let table = artefact.step_table();
        let usual = if table.len() == 0 { &[1, 2, 3, 5, 8, 13, 21][..] } else { &[] };
        let measured = table.map(|entry| entry.steps as usize).chain(usual.iter().copied());
        let mut menu = Self::single(own);
        menu.len = 0;
        // One place is kept for the artefact's own.
        let all = measured.filter(|steps| *steps < own).take(Self::MAX - 1).chain(core::iter::once(own));
        for (place, steps) in menu.steps.iter_mut().zip(all) {
            *place = steps as u16;
            menu.len += 1;
        }
        menu
    }

    /// Number of plans, at least one.
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Never: a menu has a plan.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Steps of the plan with this index, ascending; those of the longest beyond the end.
    pub const fn steps(&self, index: usize) -> usize {
        let last = (self.len as usize).saturating_sub(1);
        let index = if index < last { index } else { last };
        if index < Self::MAX { self.steps[index] as usize } else { 1 }
    }

    /// Rows of all time tables before the plan of this index, those of the plans in front of it.
    pub const fn first_node(&self, index: usize, solver: Solver) -> usize {
        let (mut nodes, mut i) = (0, 0);
        while i < index && i < self.len() {
            nodes += solver.nodes(self.steps(i));
            i += 1;
        }
        nodes
    }

    /// Rows of all time tables: what a [`StaticPolicy`](super::StaticPolicy) with this menu has as its `NODES`.
    pub const fn nodes(&self, solver: Solver) -> usize {
        self.first_node(self.len(), solver)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn menus_ascend_and_count_their_rows() {
        const MENU: Menu = Menu::new(&[1, 2, 5]).unwrap();
        const ROWS: usize = MENU.nodes(Solver::Euler);
        assert_eq!(ROWS, 8);
        assert_eq!((MENU.nodes(Solver::Rk4), MENU.first_node(2, Solver::Rk4)), (3 + 5 + 11, 3 + 5));
        assert_eq!((MENU.len(), MENU.steps(0), MENU.steps(2), MENU.steps(9)), (3, 1, 5, 5));
        for bad in [&[][..], &[0], &[2, 2], &[3, 1], &[1001], &[1, 2, 3, 4, 5, 6, 7, 8, 9]] {
            assert_eq!(Menu::new(bad), None, "{bad:?}");
        }
        assert_eq!(Menu::single(7), Menu::new(&[7]).unwrap());
        assert_eq!((Menu::single(0).steps(0), Menu::single(usize::MAX).steps(0)), (1, 1000));
    }
}
