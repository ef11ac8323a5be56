//! From a latent to the action a plant takes: `tanh`, then the action's range.
//!
//! No panics, no allocation, the same bits everywhere; one `tanh` a channel.

use crate::math;

/// The function that carries a latent to `[-1, 1]`, with its number in the artefact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u32)]
pub enum Squash {
    /// `tanh` through `libm`, which version 1 of the artefact means.
    TanhLibm = 0,
    /// [`math::tanh`].
    #[default]
    Tanh = 1,
}

impl Squash {
    /// The squash with this number in the artefact.
    pub const fn from_code(code: u32) -> Option<Self> {
        match code {
            0 => Some(Self::TanhLibm),
            1 => Some(Self::Tanh),
            _ => None,
        }
    }

    /// The name that files for other programs give it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TanhLibm => "tanh-libm",
            Self::Tanh => "tanh",
        }
    }

    /// The function's value, in `[-1, 1]`; zero for NaN.
    #[inline]
    pub fn value(self, latent: f32) -> f32 {
        let y = match self {
            Self::TanhLibm if cfg!(feature = "version-1") => math::libm_tanh(latent),
            // The reader refuses the other where its function was left out of the image.
            Self::TanhLibm | Self::Tanh => math::tanh(latent),
        };
        math::clip(y, 1.0)
    }

    /// `out = squash(latent)` under the subnormal rule: the action that a critic takes.
    pub(crate) fn apply(self, latent: &[f32], out: &mut [f32]) {
        for (out, u) in out.iter_mut().zip(latent) {
            *out = math::flush(self.value(*u));
        }
    }
}

/// Lowest and highest value of each action channel, in the plant's units.
#[derive(Debug, Clone, Copy)]
pub struct ActionRange<'a> {
    /// Lowest values.
    pub low: &'a [f32],
    /// Highest values, above the lowest.
    pub high: &'a [f32],
    /// From a latent to `[-1, 1]`.
    pub squash: Squash,
}

impl ActionRange<'_> {
    /// Writes `low + (squash(u) + 1) / 2 * (high - low)` for each component of the latent.
    ///
    /// The result lies inside the range whatever the latent; a NaN gives its middle.
    pub fn apply(&self, latent: &[f32], action: &mut [f32]) {
        let limits = self.low.iter().zip(self.high);
        for (action, (u, (low, high))) in action.iter_mut().zip(latent.iter().zip(limits)) {
            let share = 0.5 * (self.squash.value(*u) + 1.0);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_is_never_left() {
        for squash in [Squash::TanhLibm, Squash::Tanh] {
            assert_eq!(Squash::from_code(squash as u32), Some(squash));
            stays_inside(ActionRange { low: &[-2.0, 0.1, -1e30], high: &[2.0, 0.3, 1e30], squash });
        }
        assert_eq!(Squash::from_code(2), None);
    }

    fn stays_inside(range: ActionRange<'_>) {
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
