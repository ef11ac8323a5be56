//! The observation normaliser: `clip((o - mean) * scale)`, with a finite check in front.
//!
//! No panics, no allocation, the same bits everywhere; three operations a channel.

use crate::math;

/// Mean, scale and clip of the observations of a policy.
#[derive(Debug, Clone, Copy)]
pub struct Normalizer<'a> {
    /// Subtracted from each channel, in the channel's unit.
    pub mean: &'a [f32],
    /// Multiplies the difference; the inverse of a standard deviation, as a rule.
    pub scale: &'a [f32],
    /// Magnitude to which the normalised channel is clipped.
    pub clip: f32,
}

impl Normalizer<'_> {
    /// Normalises `observation` into `out`; the index of the first channel that is not finite otherwise.
    ///
    /// All three slices have the same length; channels beyond the shortest are left out.
    pub fn apply(&self, observation: &[f32], out: &mut [f32]) -> Result<(), usize> {
        let channels = observation.iter().zip(self.mean.iter().zip(self.scale));
        for (i, (out, (o, (mean, scale)))) in out.iter_mut().zip(channels).enumerate() {
            if !o.is_finite() {
                return Err(i);
            }
            *out = math::flush(math::clip((o - mean) * scale, self.clip));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_clips_flushes_and_names_the_bad_channel() {
        let normalizer = Normalizer { mean: &[1.0, 0.0, 0.0], scale: &[0.5, 2.0, 1.0], clip: 10.0 };
        let mut out = [0.0; 3];
        assert_eq!(normalizer.apply(&[3.0, -100.0, 1e-40], &mut out), Ok(()));
        assert_eq!(out, [1.0, -10.0, 0.0]);
        assert_eq!(normalizer.apply(&[f32::MAX, f32::MIN, 0.0], &mut out), Ok(()));
        assert_eq!(out, [10.0, -10.0, 0.0]);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(normalizer.apply(&[0.0, bad, 0.0], &mut out), Err(1));
        }
    }
}
