//! Explicit Runge-Kutta solvers for `dx/dt = v(x, t)` whose every stage builds on the one before it.
//!
//! Stage `i` evaluates the velocity at `x + c_i h k_{i-1}` and time `t + c_i h`; the step adds `h sum b_i k_i`. One
//! loop serves all four tableaux. Evaluation times lie on a grid of whole or half steps, so they can be tabulated.

/// An ODE solver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u32)]
pub enum Solver {
    /// Order 1, one evaluation a step.
    #[default]
    Euler = 0,
    /// Order 2, two evaluations a step.
    Midpoint = 1,
    /// Order 2 (explicit trapezoid), two evaluations a step.
    Heun = 2,
    /// Order 4, the classical Runge-Kutta method, four evaluations a step.
    Rk4 = 3,
}

impl Solver {
    /// All solvers, in the order of their numbers in the artefact.
    pub const ALL: [Self; 4] = [Self::Euler, Self::Midpoint, Self::Heun, Self::Rk4];

    /// The solver with this number in the artefact.
    pub const fn from_code(code: u32) -> Option<Self> {
        match code {
            0 => Some(Self::Euler),
            1 => Some(Self::Midpoint),
            2 => Some(Self::Heun),
            3 => Some(Self::Rk4),
            _ => None,
        }
    }

    /// The name used on the command line and in configuration files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Euler => "euler",
            Self::Midpoint => "midpoint",
            Self::Heun => "heun",
            Self::Rk4 => "rk4",
        }
    }

    /// Velocity evaluations a step.
    pub const fn evaluations(self) -> usize {
        self.stages().len()
    }

    /// Distinct evaluation times of `steps` steps, the length of a time table.
    pub const fn nodes(self, steps: usize) -> usize {
        match self {
            Self::Euler => steps,
            Self::Midpoint => steps.saturating_mul(2),
            Self::Heun => steps.saturating_add(1),
            Self::Rk4 => steps.saturating_mul(2).saturating_add(1),
        }
    }

    /// Table nodes a step: the grid is whole steps or half steps.
    pub(super) const fn nodes_per_step(self) -> usize {
        match self {
            Self::Euler | Self::Heun => 1,
            Self::Midpoint | Self::Rk4 => 2,
        }
    }

    /// The stages: offset in table nodes, `c_i` and `b_i`.
    pub(super) const fn stages(self) -> &'static [Stage] {
        match self {
            Self::Euler => &[Stage { node: 0, c: 0.0, b: 1.0 }],
            Self::Midpoint => &[Stage { node: 0, c: 0.0, b: 0.0 }, Stage { node: 1, c: 0.5, b: 1.0 }],
            Self::Heun => &[Stage { node: 0, c: 0.0, b: 0.5 }, Stage { node: 1, c: 1.0, b: 0.5 }],
            Self::Rk4 => &[
                Stage { node: 0, c: 0.0, b: 1.0 / 6.0 },
                Stage { node: 1, c: 0.5, b: 1.0 / 3.0 },
                Stage { node: 1, c: 0.5, b: 1.0 / 3.0 },
                Stage { node: 2, c: 1.0, b: 1.0 / 6.0 },
            ],
        }
    }
}

/// One stage of a tableau.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stage {
    /// Offset from the step's first table node.
    pub node: usize,
    /// Share of the step at which the stage evaluates.
    pub c: f32,
    /// Weight of the stage's slope in the step.
    pub b: f32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tableaux_are_consistent_and_nodes_cover_every_stage() {
        for (code, solver) in Solver::ALL.into_iter().enumerate() {
            assert_eq!(Solver::from_code(code as u32), Some(solver));
            assert_eq!(solver as usize, code);
            let weights: f32 = solver.stages().iter().map(|s| s.b).sum();
            assert!((weights - 1.0).abs() < 1e-6);
            let last = (0..7).flat_map(|i| solver.stages().iter().map(move |s| i * solver.nodes_per_step() + s.node));
            assert_eq!(last.max().unwrap() + 1, solver.nodes(7), "{solver:?}");
            for s in solver.stages() {
                assert_eq!(s.node as f32, s.c * solver.nodes_per_step() as f32);
            }
        }
        assert_eq!(Solver::from_code(4), None);
    }
}
