//! From a latent to the action a plant takes: `tanh`, then the action's range.
//!
//! No panics, no allocation, the same bits everywhere; one `tanh` a channel.

use crate::math;

/// Lowest and highest value of each action channel, in the plant's units.
#[derive(Debug, Clone, Copy)]
pub struct ActionRange<'a> {
    /// Lowest values.
    pub low: &'a [f32],
    /// Highest values, above the lowest.
    pub high: &'a [f32],
}

impl ActionRange<'_> {
    /// Writes `low + (tanh(u) + 1) / 2 * (high - low)` for each component of the latent.
    ///
    /// The result lies inside the range whatever the latent; a NaN gives its middle.
    pub fn apply(&self, latent: &[f32], action: &mut [f32]) {
        let limits = self.low.iter().zip(self.high);
        for (action, (u, (low, high))) in action.iter_mut().zip(latent.iter().zip(limits)) {
            let share = 0.5 * (math::clip(math::libm_tanh(*u), 1.0) + 1.0);
            let value = low + share * (high - low);
            *action = math::flush(if value > *high {
                *high
            } else if value < *low {
                *low
            } else {
                value
            });
        }
    }
}

/// `out = tanh(latent)`: the squashed action that a critic takes, each component in `[-1, 1]`.
pub(crate) fn squash(latent: &[f32], out: &mut [f32]) {
    for (out, u) in out.iter_mut().zip(latent) {
        *out = math::flush(math::clip(math::libm_tanh(*u), 1.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_is_never_left() {
        let range = ActionRange { low: &[-2.0, 0.1, -1e30], high: &[2.0, 0.3, 1e30] };
        let mut action = [0.0; 3];
        for latent in [0.0, 0.5, -0.5, 40.0, -40.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
            range.apply(&[latent; 3], &mut action);
            for ((a, low), high) in action.iter().zip(range.low).zip(range.high) {
                assert!(a >= low && a <= high, "{latent}: {a}");
            }
        }
        range.apply(&[0.0, 20.0, -20.0], &mut action);
        assert_eq!(action, [0.0, 0.3, -1e30]);
        range.apply(&[0.5, 0.0, 0.0], &mut action);
        assert!((action[0] - 2.0 * 0.5f32.tanh()).abs() < 1e-6);
    }
}
