//! An estimate in cycles of a dense chain on a Cortex-M4, from Arm's published instruction timings.
//!
//! Fewer instructions can be slower ones, so a count alone does not compare two kernels. This file walks through
//! `src/net/kernel/vfp.s` as the core would, and adds up the timings of the Cortex-M4 Technical Reference Manual (r0p1:
//! section 3.3 for the core, 7.2.3 for the floating-point unit): `Tally` has them. Branches are taken to refill the
//! pipeline in two cycles. It is an estimate: zero wait states, no interrupt, nothing measured on a board. The same walk
//! counts instructions, which must agree with what QEMU counts.

/// Instructions by their timing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    /// One cycle: VMUL, VADD, VCMP, VMRS, VMOV, and arithmetic of the core, branches not taken included.
    single: u64,
    /// Three cycles: VMLA.
    multiply_accumulate: u64,
    /// Loads and stores, one cycle and one a register.
    transfers: u64,
    registers: u64,
    /// Branches that are taken: one cycle and the refill.
    taken: u64,
    /// Cycles in which an operation waits for the one before it.
    waits: u64,
}

/// Cycles of a pipeline's refill; the manual says one to three.
const REFILL: u64 = 2;

/// Cycles of an instruction outside of the kernels: calls, checks of lengths, loads.
const OTHER: u64 = 2;

/// Rows of the kernel's blocks.
const BLOCKS: [u64; 7] = [16, 12, 8, 6, 4, 2, 1];

impl Tally {
    fn instructions(&self) -> u64 {
        self.single + self.multiply_accumulate + self.transfers + self.taken
    }

    fn cycles(&self) -> u64 {
        let transfers = self.transfers + self.registers;
        self.single + 3 * self.multiply_accumulate + transfers + (1 + REFILL) * self.taken + self.waits
    }

    fn transfer(&mut self, registers: u64) {
        self.transfers += 1;
        self.registers += registers;
    }

    /// A branch that closes a loop of `turns`, with the subtraction before it.
    fn turns(&mut self, turns: u64) {
        self.single += turns;
        if turns > 0 {
            self.taken += turns - 1;
            self.single += 1;
        }
    }

    /// A conditional branch after its comparison.
    fn branch(&mut self, taken: bool) {
        self.single += 1;
        if taken { self.taken += 1 } else { self.single += 1 }
    }

    /// One column of a block of `n` rows.
    fn column(&mut self, n: u64) {
        for rows in if n == 16 { vec![8, 8] } else { vec![n] } {
            self.transfer(rows);
            // Three of four products are VMUL and VADD.
            self.multiply_accumulate += rows / 4;
            self.single += 2 * (rows - rows / 4);
            self.waits += u64::from(rows == 1);
        }
        self.single += 1;
    }

    fn relu(&mut self, n: u64, relu: bool) {
        self.branch(!relu);
        if relu {
            self.single += 2 + 4 * n;
        }
    }

    fn block(&mut self, n: u64, columns: u64, relu: bool) {
        self.transfer(n);
        self.single += 3;
        self.branch(columns < 4);
        for _ in 0..columns / 4 {
            self.transfer(4);
            (0..4).for_each(|_| self.column(n));
        }
        self.turns(columns / 4);
        self.branch(columns.is_multiple_of(4));
        for _ in 0..columns % 4 {
            self.transfer(1);
            self.column(n);
        }
        self.turns(columns % 4);
        self.relu(n, relu);
        self.transfer(n);
    }

    /// The kernel's function on a matrix.
    fn dense(&mut self, rows: u64, columns: u64, relu: bool) {
        // Saved registers, the job, the stride.
        self.transfer(9);
        self.transfer(16);
        self.transfer(7);
        self.single += 1;
        self.branch(rows == 1);
        if rows == 1 {
            self.single_row(columns, relu);
        } else {
            self.single += 1;
            self.branch(rows < 16);
            for _ in 0..rows / 16 {
                self.block(16, columns, relu);
            }
            self.turns(rows / 16);
            let mut left = rows % 16;
            self.branch(left == 0);
            for n in BLOCKS.into_iter().skip(1) {
                if left == 0 {
                    break;
                }
                self.branch(left < n);
                if left >= n {
                    self.block(n, columns, relu);
                    left -= n;
                    self.branch(left == 0);
                }
            }
        }
        self.transfer(16);
        self.transfer(9);
        self.waits += REFILL;
    }

    fn single_row(&mut self, columns: u64, relu: bool) {
        self.transfer(1);
        self.branch(columns < 4);
        for _ in 0..columns / 4 {
            self.transfer(4);
            self.transfer(4);
            self.single += 8;
            self.waits += 3;
        }
        self.turns(columns / 4);
        self.branch(columns.is_multiple_of(4));
        for _ in 0..columns % 4 {
            self.transfer(1);
            self.transfer(1);
            self.single += 2;
            self.waits += 1;
        }
        self.turns(columns % 4);
        self.relu(1, relu);
        self.transfer(1);
    }
}

/// Instructions that the kernels take of a chain's pass, and the estimate of cycles of the whole pass, for which
/// `instructions` were counted; hidden layers have ReLU.
pub fn estimate(widths: &[u64], instructions: u64) -> (u64, u64) {
    let mut tally = Tally::default();
    for (layer, pair) in widths.windows(2).enumerate() {
        tally.dense(pair[1], pair[0], layer + 2 < widths.len());
    }
    let kernels = tally.instructions();
    (kernels, tally.cycles() + OTHER * instructions.saturating_sub(kernels))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_of_sixteen_rows_is_counted_by_hand() {
        let mut tally = Tally::default();
        tally.column(16);
        // Two loads of eight, twelve VMUL, twelve VADD, four VMLA, the address.
        assert_eq!((tally.instructions(), tally.cycles()), (31, 18 + 24 + 12 + 1));
    }

    #[test]
    fn the_walk_agrees_with_what_qemu_counts() {
        // Instructions of `chain` on the Cortex-M4F; what is not in the kernels calls them.
        for (widths, counted) in [([24, 64, 64, 6], 12_807), ([3, 64, 64, 1], 9_463), ([64, 128, 128, 12], 53_187)] {
            let (kernels, cycles) = estimate(&widths, counted);
            assert!(kernels < counted && counted - kernels < 90, "{widths:?}: {kernels} of {counted}");
            assert!(cycles > kernels, "{cycles}");
        }
    }
}
