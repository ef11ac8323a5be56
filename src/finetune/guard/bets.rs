//! Bets against a hypothesis on the mean of a bounded number: what they win is evidence, valid at any time.
//!
//! The hypothesis: given all that was seen before, the next difference `d` in `[-1, 1]` has a mean of at most `margin`.
//! A gambler who stakes a fixed share of his wealth on `d > margin` has after each round
//!
//! ```text
//! wealth <- wealth * (1 + stake * (d - margin)),    0 <= stake < 1 / (1 + margin)
//! ```
//!
//! which cannot be negative, and grows in the mean of no round while the hypothesis holds: a nonnegative supermartingale
//! from 1. It therefore *ever* reaches `1 / alpha` with a probability of at most `alpha` (Ville 1939), however long one
//! looks and whenever one stops. These are the capital processes of Waudby-Smith and Ramdas, "Estimating means of bounded
//! random variables by betting", Journal of the Royal Statistical Society B 86 (2024), arXiv 2010.09686, with the mean
//! of four fixed stakes for the strategy: no variance has to be known, and no round is lost on learning the stake.
//!
//! The roundings of a round are below `9 * 2^-24` of the wealth, and 2^-20 of it is taken off: what holds in exact
//! arithmetic holds in this. A wealth below 2^-50 is zero for good and one above 2^100 stays there, both to the
//! gambler's disadvantage.
//!
//! No panics, no allocation, deterministic; a round is one division and 22 additions and multiplications.

use crate::math;

/// Shares of the largest lawful stake. With the spread `s` and the mean `m` of the differences the best one is near
/// `m / (m^2 + s^2)`: from successes and failures that hardly differ to differences that hardly vary.
const STAKES: [f32; 4] = [0.125, 0.3125, 0.625, 0.9375];

/// See the module's text.
const ROUNDINGS: f32 = 1.0 - 1.0 / (1 << 20) as f32;

/// No wealth above this: 2^100.
const MOST: f32 = 1.0 / math::FLUSH_BIAS;

/// What the four gamblers own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bets {
    wealth: [f32; Bets::LEN],
}

impl Bets {
    /// Numbers of the state.
    pub(super) const LEN: usize = STAKES.len();

    /// Nothing bet yet.
    pub(super) const fn new() -> Self {
        Self { wealth: [1.0; Self::LEN] }
    }

    /// The state of [`wealth`](Self::wealth); `None` for numbers that no bets lead to.
    pub(super) fn of(wealth: [f32; Self::LEN]) -> Option<Self> {
        let lawful = |w: &f32| w.to_bits() == math::flush(*w).to_bits() && *w >= 0.0 && *w <= MOST;
        wealth.iter().all(lawful).then_some(Self { wealth })
    }

    /// What each gambler owns.
    pub(super) fn wealth(&self) -> &[f32; Self::LEN] {
        &self.wealth
    }

    /// One round. `difference` in `[-1, 1]`, `margin` in `[0, 1)`.
    pub(super) fn bet(&mut self, difference: f32, margin: f32) {
        let (gain, most) = (difference - margin, 1.0 / (1.0 + margin));
        for (wealth, stake) in self.wealth.iter_mut().zip(&STAKES) {
            let next = math::flush(*wealth * (1.0 + stake * most * gain) * ROUNDINGS);
            *wealth = if next > MOST { MOST } else { next };
        }
    }

    /// One round in which no gambler starts with less than 1: for a hypothesis that may cease to hold at some time.
    ///
    /// Where it holds for ever, the [`evidence`](Self::evidence) reaches `n` in no fewer than `n` rounds on average: a
    /// mixture of CUSUM e-detectors (Shin, Ramdas and Rinaldo 2023, arXiv 2203.03532).
    pub(super) fn watch(&mut self, difference: f32) {
        for wealth in &mut self.wealth {
            *wealth = if *wealth < 1.0 { 1.0 } else { *wealth };
        }
        self.bet(difference, 0.0);
    }

    /// The mean wealth, the evidence against the hypothesis.
    pub(super) fn evidence(&self) -> f32 {
        let mut sum = 0.0;
        for wealth in &self.wealth {
            sum += wealth;
        }
        // What is taken off makes up for the sum's roundings.
        sum * (ROUNDINGS / Self::LEN as f32)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    /// The mean of the evidence after `n` rounds over all sequences of `outcomes` (difference, probability), in f64.
    fn mean(outcomes: &[(f32, f64)], n: u32, margin: f32) -> f64 {
        let mut all = Vec::from([(Bets::new(), 1.0)]);
        for _ in 0..n {
            all = all
                .iter()
                .flat_map(|(bets, p)| {
                    outcomes.iter().map(move |(difference, q)| {
                        let mut next = *bets;
                        next.bet(*difference, margin);
                        (next, p * q)
                    })
                })
                .collect();
        }
        all.iter().map(|(bets, p)| f64::from(bets.evidence()) * p).sum()
    }

    /// At the hypothesis' edge the evidence has mean 1 after any number of rounds, less what is kept back for roundings.
    #[test]
    fn evidence_is_a_martingale_at_the_edge() {
        let cases: [(&[(f32, f64)], f32); 5] = [
            (&[(-1.0, 0.5), (1.0, 0.5)], 0.0),
            (&[(-1.0, 0.25), (0.0, 0.5), (1.0, 0.25)], 0.0),
            (&[(-1.0, 0.1), (1.0 / 9.0, 0.9)], 0.0),
            (&[(-0.125, 0.75), (0.375, 0.25)], 0.0),
            (&[(-1.0, 0.46875), (1.0, 0.53125)], 0.0625),
        ];
        for (outcomes, margin) in cases {
            for n in 1..=9 {
                let mean = mean(outcomes, n, margin);
                // 2^-20 is kept back a round and once more; roundings add or take less than that.
                let kept = f64::from(n + 1) / f64::from(1 << 20);
                assert!(mean <= 1.0 && mean >= 1.0 - 2.0 * kept, "{outcomes:?} {n}: {}", mean - 1.0);
            }
        }
    }

    /// Inside the hypothesis it falls, outside it grows: the same enumeration can tell.
    #[test]
    fn evidence_falls_inside_and_grows_outside() {
        assert!(mean(&[(-1.0, 0.55), (1.0, 0.45)], 9, 0.0) < 0.8);
        assert!(mean(&[(-1.0, 0.45), (1.0, 0.55)], 9, 0.0) > 1.3);
        assert!(mean(&[(-1.0, 0.5), (1.0, 0.5)], 9, 0.1) < 0.8);
    }

    /// The best fixed stake for a certain outcome is the largest one: closed form.
    #[test]
    fn certain_differences_grow_as_the_closed_form() {
        let mut bets = Bets::new();
        for n in 1..=100 {
            bets.bet(0.25, 0.0);
            let exact = STAKES.map(|s| (1.0 + 0.25 * f64::from(s)).powi(n)).iter().sum::<f64>() / 4.0;
            // n + 1 of the reserves of 2^-20, and less than that of rounding each round.
            let relative = f64::from(bets.evidence()) / exact - 1.0;
            assert!(relative <= 0.0 && relative >= -2.0 * f64::from(n + 1) / f64::from(1 << 20), "{n}: {relative}");
        }
    }

    #[test]
    fn wealth_stays_lawful_at_both_ends() {
        let (mut poor, mut rich) = (Bets::new(), Bets::new());
        for _ in 0..2_000 {
            poor.bet(-1.0, 0.5);
            rich.bet(1.0, 0.0);
            assert_eq!((Bets::of(poor.wealth), Bets::of(rich.wealth)), (Some(poor), Some(rich)));
        }
        assert_eq!((poor.evidence(), rich.wealth), (0.0, [MOST; 4]));
        rich.watch(-1.0);
        poor.watch(1.0);
        assert!(rich.evidence() < MOST && poor.evidence() > 1.4);
        for wrong in [f32::NAN, f32::INFINITY, -1.0, -0.0, 1e-30, 2.0 * MOST] {
            assert_eq!(Bets::of([1.0, wrong, 1.0, 1.0]), None, "{wrong}");
        }
    }

    /// Under the hypothesis the watch needs as many rounds on average as the evidence that is asked for, at least.
    #[test]
    fn watch_raises_false_alarms_no_more_often_than_stated() {
        use rand_xoshiro::{
            Xoshiro256PlusPlus,
            rand_core::{Rng, SeedableRng},
        };
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(3);
        let (runs, asked) = (2_000, 100.0);
        let mut rounds = 0_u64;
        for _ in 0..runs {
            let mut bets = Bets::new();
            while bets.evidence() < asked {
                bets.watch(if rng.next_u32() >> 31 == 0 { -1.0 } else { 1.0 });
                rounds += 1;
            }
        }
        let average = rounds as f64 / f64::from(runs);
        // The run length's deviation is about its mean: 2,000 runs tell that to 2.3 %, and the bound is far off.
        assert!(average > f64::from(asked) && average < 20.0 * f64::from(asked), "{average}");
    }
}
