//! How an update is cut: a budget of instructions for a slice, and what each piece takes of it.
//!
//! The costs are bounds in instructions of a Cortex-M4F, with all inputs of a product different from zero; the firmware
//! program `finetune` measures slices against them. What a budget decides is where an update is interrupted, never what
//! it computes. No panics, no allocation.

use super::config::Config;
use super::trained::{Perceptron, Trained};
use crate::net::{Activation, CriticShape, VelocityShape};
use core::ops::Range;

/// What is left of a slice, in instructions.
#[derive(Debug, Clone, Copy)]
pub struct Budget(u32);

impl Budget {
    /// So much that nothing is interrupted.
    pub const fn whole() -> Self {
        Self(u32::MAX)
    }

    /// Of a slice of so many instructions, without what entering and leaving it takes.
    pub(super) const fn of_slice(instructions: u32) -> Self {
        Self(instructions.saturating_sub(OVERHEAD))
    }

    /// Takes `cost`, if there is as much.
    pub(super) fn take(&mut self, cost: u32) -> bool {
        let enough = self.0 >= cost;
        if enough && self.0 != u32::MAX {
            self.0 -= cost;
        }
        enough
    }

    /// As many units of a pass over `total` as there is budget for, from `at` on, where it goes on next; `None` if not one.
    pub(super) fn units(&mut self, at: &mut usize, total: usize, cost: Cost) -> Option<Range<usize>> {
        let from = *at;
        let open = total.saturating_sub(from);
        if open == 0 {
            return Some(from..from);
        }
        let most = self.0.saturating_sub(cost.fixed) / cost.unit.max(1);
        let units = open.min(most as usize);
        if units == 0 || !self.take(cost.fixed + units as u32 * cost.unit) {
            return None;
        }
        *at = from + units;
        Some(from..*at)
    }
}

/// Where a pass through a network stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cut {
    /// Dense layer, counted in the pass's direction.
    pub layer: usize,
    /// Part of the layer.
    pub part: u8,
    /// Unit of the part: a column, a row or a rank.
    pub at: usize,
}

/// A bound of what a piece takes: a part that is the same for any number of units, and a unit's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    pub fixed: u32,
    pub unit: u32,
}

impl Cost {
    const fn new(fixed: usize, unit: usize) -> Self {
        Self { fixed: fixed as u32, unit: unit as u32 }
    }

    /// Of the smallest piece.
    const fn least(self) -> u32 {
        self.fixed + self.unit
    }
}

/// To find a layer's parts, and to go from one to the next.
const PART: usize = 160;

/// To call a kernel.
const CALL: usize = 90;

/// A slice's own: the memory is cut, and the end of a pass follows its last piece.
const OVERHEAD: u32 = 1200;

/// Of a step: its memory is cut, and the end of a pass.
pub(super) const ENTRY: u32 = 500;

/// Inputs that are copied.
pub(super) const fn copies(inputs: usize) -> u32 {
    (80 + 16 * inputs) as u32
}

/// So many normal numbers.
pub(super) const fn draws(act: usize) -> u32 {
    (600 * act) as u32
}

/// So many hyperbolic tangents.
pub(super) const fn squashes(act: usize) -> u32 {
    (400 * act) as u32
}

/// The mean of candidates.
pub(super) const fn weighs(candidates: usize, act: usize) -> u32 {
    (100 + candidates * (250 + 12 * act)) as u32
}

/// Of a pass over numbers: a part of the norm, of a step, of the slow copy, of fresh critics.
pub(super) const NORM: Cost = Cost::new(500, 12);
pub(super) const MOVE: Cost = Cost::new(600, 92);
pub(super) const SLOW: Cost = Cost::new(500, 17);
pub(super) const RESET: Cost = Cost::new(700, 60);

/// A column of a product of `rows` rows: 2 1/4 instructions a multiply-accumulate.
const fn column(rows: usize) -> usize {
    rows * 9 / 4 + 10 + rows.div_ceil(16) * 4
}

/// A product's blocks of rows, loaded and stored.
const fn product(rows: usize) -> usize {
    PART + CALL + rows + rows.div_ceil(8) * 16
}

/// A sum over `rows`, of products of two columns.
const fn sum(rows: usize) -> usize {
    CALL + 13 * rows / 4
}

/// Instructions of an activation at one number, and of its slope.
const fn function(activation: Activation) -> usize {
    match activation {
        Activation::Relu => 12,
        Activation::Tanh | Activation::Silu | Activation::Gelu => 70,
        Activation::TanhLibm | Activation::SiluLibm | Activation::GeluLibm => 400,
    }
}

impl Perceptron {
    /// What the parts of a layer take forward: the columns, those of `V`, those of `U`, and an activation that is no ReLU.
    pub(super) const fn forward_cost(&self, part: u8, rows: usize, rank: usize) -> Cost {
        match part {
            0 => Cost::new(product(rows) + 8 * rows, column(rows)),
            1 => Cost::new(product(rank), column(rank)),
            2 => Cost::new(product(rows) + 8 * rank, column(rows)),
            _ => Cost::new(PART, function(self.activation)),
        }
    }

    /// What they take backward: the bias's gradient, `U`'s, the columns, the slopes.
    pub(super) const fn backward_cost(&self, part: u8, rows: usize, rank: usize) -> Cost {
        // Of a column: its sum, and what it adds to the gradient of `V` and takes from `V`, or adds to that of its own.
        let own = if rank > 0 { 14 * rank + 60 } else { column(rows) + CALL + 40 };
        match part {
            0 => Cost::new(PART, 10 * rows),
            1 => Cost::new(PART, product(rows) + column(rows) + sum(rows)),
            2 => Cost::new(PART + 2 * CALL, rows * 11 / 4 + 16 + own),
            _ => Cost::new(PART, 10 + function(self.activation)),
        }
    }

    /// The most that a smallest piece of a pass takes.
    pub(super) const fn least_piece(&self, trained: Trained) -> u32 {
        let (mut l, mut most) = (0, 0);
        while l <= self.layers {
            let (rows, rank) = (self.rows(l), self.rank_of(trained, l));
            let mut part = 0;
            while part < 5 {
                let (forward, backward) =
                    (self.forward_cost(part, rows, rank).least(), self.backward_cost(part, rows, rank).least());
                let larger = if forward > backward { forward } else { backward };
                most = if larger > most { larger } else { most };
                part += 1;
            }
            l += 1;
        }
        most
    }
}

const fn larger(a: u32, b: u32) -> u32 {
    if a > b { a } else { b }
}

/// The least that [`Config::slice`] may be: what the largest of the pieces takes that nothing cuts.
pub const fn least_slice(policy: &VelocityShape, critic: &CriticShape, config: &Config) -> u32 {
    let (a, c) = (Perceptron::velocity(policy), Perceptron::critic(critic));
    let inputs = if a.inputs > c.inputs { a.inputs } else { c.inputs };
    let start = draws(policy.act) + squashes(policy.act) + copies(inputs);
    let numbers = larger(larger(NORM.least(), MOVE.least()), larger(SLOW.least(), RESET.least()));
    let most = larger(a.least_piece(config.actor), c.least_piece(config.critic));
    let most = larger(larger(most, start), larger(numbers, squashes(2 * policy.act)));
    OVERHEAD + ENTRY + larger(most, weighs(config.candidates, policy.act))
}
