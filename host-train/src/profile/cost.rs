//! What a decision costs on a Cortex-M4F: multiply-accumulates and memory exactly, instructions by a fitted model.
//!
//! The model is linear in counts that follow from the shape of the policy: multiply-accumulates, columns and number of the
//! kernels' blocks of rows, columns of 4 rows and of 1 for the four samples of a group, activations by kind, residual sums, evaluations of the velocity and their slopes, squashed
//! components (with the noise they start from), observations. `cargo xtask
//! profile-fit` measures decisions of random policies in QEMU, fits the constants below and prints them with the error on
//! policies that took no part in the fit; `cargo xtask test` measures the committed policy and others against `ERROR`.
//! Instructions are not cycles, and an activation's instructions depend on its argument: that is most of the error.
//!
//! No allocation, no panics. This file depends on `flowlet` alone, since xtask compiles it too.

use flowlet::flow::Plan;
use flowlet::net::{Activation, CriticShape, LANES, VelocityShape};
use flowlet::policy::{BestOfScratch, PolicyScratch};

/// Counts of a decision that its instructions are linear in.
pub const COUNTS: usize = 19;

/// What the counts are of, in order.
pub const NAMES: [&str; COUNTS] = [
    "decision",
    "multiply-accumulate of a block of rows",
    "column of a block of rows",
    "column of a single row",
    "ReLU",
    "tanh through libm",
    "SiLU through libm",
    "GELU through libm",
    "tanh",
    "SiLU",
    "GELU",
    "residual sum",
    "evaluation of the velocity",
    "squashed component",
    "observation",
    "component of a slope",
    "column of 4 rows for 4 samples",
    "column of 1 row for 4 samples",
    "block of rows",
];

/// Instructions of each, on a Cortex-M4F: printed by `cargo xtask profile-fit`.
pub const INSTRUCTIONS: [f64; COUNTS] = [
    607.02, 1.73, 3.24, 3.28, 7.21, 98.00, 71.45, 102.87, 22.40, 23.49, 24.56, 9.90, 325.28, 198.86, 31.18, 27.41,
    32.47, 10.19, 30.41,
];

/// Largest relative error that the model is held to, for layers of 16 units or more and decisions of 5,000 instructions
/// or more.
pub const ERROR: f64 = 0.06;

/// Bytes of the checked view inside a `StaticPolicy` on a 32-bit machine, beside its scratch.
pub const VIEW_BYTES: usize = 344;

/// Most stack that a measured decision took on a Cortex-M4F, in bytes.
pub const STACK_BYTES: usize = 928;

/// A decision: sizes, plan, and from how many samples the critics choose.
#[derive(Clone, Copy, Debug)]
pub struct Decision {
    /// The velocity network.
    pub shape: VelocityShape,
    /// The plan of integration.
    pub plan: Plan,
    /// Shape and number of the critics; not used with one particle.
    pub critics: Option<(CriticShape, usize)>,
    /// Samples of which one is chosen; 1 is a plain sample.
    pub particles: usize,
}

impl Decision {
    /// The critics that are evaluated.
    fn judges(&self) -> Option<(CriticShape, usize)> {
        self.critics.filter(|_| self.particles > 1)
    }

    /// Samples that are computed: whole groups where the critics choose.
    fn drawn(&self) -> usize {
        if self.judges().is_some() { self.particles.div_ceil(LANES) * LANES } else { self.particles }
    }

    /// Multiply-accumulates, the time part cached.
    pub fn macs(&self) -> usize {
        let velocity = self.plan.evaluations() * self.shape.macs_per_evaluation();
        let critics = self.judges().map_or(0, |(critic, count)| {
            let value = (critic.act + 1 + (critic.layers - 1) * critic.hidden) * critic.hidden;
            count * (critic.obs * critic.hidden + self.drawn() * value)
        });
        self.shape.macs_of_state_part() + self.drawn() * velocity + critics
    }

    /// Bytes of memory that flowlet's own size functions ask for: the scratch of a decision and of the selection.
    pub fn scratch_bytes(&self) -> usize {
        let selection = self.judges().map_or(0, |(critic, count)| BestOfScratch::len(&self.shape, &critic, count));
        4 * (PolicyScratch::len(&self.shape, &self.plan) + selection)
    }

    /// The counts, in the order of [`NAMES`].
    pub fn counts(&self) -> [f64; COUNTS] {
        let VelocityShape { obs, act, hidden, layers, activation, trunk, .. } = self.shape;
        let drawn = self.drawn();
        let evaluations = drawn * self.plan.evaluations();
        let mut counts = Counts([0.0; COUNTS]);
        counts.dense(hidden, obs, 1);
        // A group of samples reads the weights once.
        let group = if self.judges().is_some() { LANES } else { 1 };
        let mut products = |rows, columns, times| match group {
            1 => counts.dense(rows, columns, times),
            _ => counts.dense_batch(rows, columns, times / LANES),
        };
        products(hidden, act, evaluations);
        products(hidden, hidden, (layers - 1) * evaluations);
        products(act, hidden, evaluations);
        if let Some((critic, count)) = self.judges() {
            products(critic.hidden, critic.act, count * drawn);
            products(critic.hidden, critic.hidden, (critic.layers - 1) * count * drawn);
            products(1, critic.hidden, count * drawn);
        }
        counts.activations(activation, layers * hidden * evaluations);
        let residual = if trunk == flowlet::net::Trunk::Residual { (layers - 1) * hidden * evaluations } else { 0 };
        let mut squashed = act;
        if let Some((critic, count)) = self.judges() {
            counts.dense(critic.hidden, critic.obs, count);
            counts.activations(critic.activation, critic.layers * critic.hidden * count * drawn);
            squashed += drawn * act;
        }
        counts.add(0, 1);
        counts.add(11, residual);
        counts.add(12, evaluations / group);
        counts.add(13, squashed);
        counts.add(14, obs);
        counts.add(15, act * evaluations);
        counts.0
    }

    /// Instructions by the model.
    pub fn instructions(&self) -> f64 {
        self.counts().iter().zip(INSTRUCTIONS).map(|(count, each)| count * each).sum()
    }
}

struct Counts([f64; COUNTS]);

/// Rows of the kernel's blocks after those of 16, each of which comes once at most.
const BLOCKS: [usize; 6] = [12, 8, 6, 4, 2, 1];

impl Counts {
    fn add(&mut self, index: usize, n: usize) {
        self.0[index] += n as f64;
    }

    /// `times` products with a matrix. Flowlet's kernel for this core takes 16 rows at once and what is left in the largest
    /// blocks of [`BLOCKS`]; a matrix of one row is an affair of its own.
    fn dense(&mut self, rows: usize, columns: usize, times: usize) {
        if rows == 1 {
            return self.add(3, columns * times);
        }
        let (mut blocks, mut left) = (rows / 16, rows % 16);
        for size in BLOCKS {
            if left >= size {
                (blocks, left) = (blocks + 1, left - size);
            }
        }
        self.add(1, rows * columns * times);
        self.add(2, blocks * columns * times);
        self.add(18, blocks * times);
    }

    /// The same for [`LANES`] samples at once: 4 rows, then 1.
    fn dense_batch(&mut self, rows: usize, columns: usize, times: usize) {
        for (index, blocks) in [(16, rows / 4), (17, rows % 4)] {
            self.add(index, blocks * columns * times);
        }
    }

    fn activations(&mut self, kind: Activation, n: usize) {
        self.add(4 + kind as usize, n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowlet::flow::Solver;
    use flowlet::net::Trunk;

    /// The committed policy's sizes, and best of 16 by two critics.
    fn decision(particles: usize) -> Decision {
        let (activation, trunk) = (Activation::Relu, Trunk::Plain);
        let shape = VelocityShape { obs: 3, act: 1, hidden: 64, layers: 2, frequencies: 4, activation, trunk };
        let critic = CriticShape { obs: 3, act: 1, hidden: 24, layers: 2, activation };
        let plan = Plan { solver: Solver::Euler, steps: 5, t_start: 0.0, t_end: 1.0, latent_clip: 6.0 };
        Decision { shape, plan, critics: Some((critic, 2)), particles }
    }

    #[test]
    fn multiply_accumulates_are_those_of_the_columns() {
        // As the firmware prints them.
        assert_eq!(decision(1).macs(), 3 * 64 + 5 * (64 + 64 * 64 + 64));
        assert_eq!(decision(16).macs(), 3 * 64 + 80 * (64 + 64 * 64 + 64) + 2 * (3 * 24 + 16 * (24 + 24 * 24 + 24)));
        for particles in [1, 16] {
            let counts = decision(particles).counts();
            let of_columns = counts[1] + counts[3] + 16.0 * counts[16] + 4.0 * counts[17];
            assert_eq!(of_columns as usize, decision(particles).macs());
        }
    }

    #[test]
    fn rows_are_taken_in_blocks() {
        for (rows, blocks) in [(2, 1), (3, 2), (12, 1), (15, 3), (16, 1), (64, 4), (65, 5), (39, 4)] {
            let mut counts = Counts([0.0; COUNTS]);
            counts.dense(rows, 10, 2);
            let counts = [1, 2, 3, 18].map(|index| counts.0[index] as usize);
            assert_eq!(counts, [20 * rows, 20 * blocks, 0, 2 * blocks], "{rows}");
        }
    }

    #[test]
    fn critics_cost_nothing_where_nothing_is_chosen() {
        let alone = Decision { critics: None, ..decision(1) };
        assert_eq!(decision(1).counts(), alone.counts());
        assert_eq!(decision(1).scratch_bytes(), alone.scratch_bytes());
        // (5 + 4) 64 + 3 + 4 floats, and 2 x 24 + 8 x 64 + 21 for the selection.
        assert_eq!((alone.scratch_bytes(), decision(16).scratch_bytes()), (4 * 583, 4 * (583 + 581)));
        // A group that is not full costs what a full one does.
        assert_eq!(decision(13).counts(), decision(16).counts());
    }
}
