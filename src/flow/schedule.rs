//! Schedules `alpha(t)`, `beta(t)` of the interpolant, and the velocity that follows from a posterior mean.
//!
//! Pure arithmetic, no panics; a handful of instructions each.

/// The path from source to action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
#[repr(u32)]
pub enum Schedule {
    /// `alpha = t`, `beta = 1 - t` (Lipman et al. 2023; Liu et al. 2023).
    #[default]
    Linear = 0,
}

impl Schedule {
    /// The schedule with this number in the artefact.
    pub const fn from_code(code: u32) -> Option<Self> {
        match code {
            0 => Some(Self::Linear),
            _ => None,
        }
    }

    /// Weight of the action, `alpha(t)`.
    pub fn alpha(self, t: f32) -> f32 {
        match self {
            Self::Linear => t,
        }
    }

    /// Weight of the source, `beta(t)`.
    pub fn beta(self, t: f32) -> f32 {
        match self {
            Self::Linear => 1.0 - t,
        }
    }

    /// Derivatives `(alpha'(t), beta'(t))`.
    pub fn rates(self, _t: f32) -> (f32, f32) {
        match self {
            Self::Linear => (1.0, -1.0),
        }
    }

    /// One component of the velocity from the data posterior mean `E[X_1 | X_t = x]`:
    /// `(beta'/beta) x + ((alpha' beta - alpha beta') / beta) E[X_1]`, for `0 <= t < 1`.
    pub fn velocity_from_data(self, t: f32, x: f32, data_mean: f32) -> f32 {
        let ((da, db), a, b) = (self.rates(t), self.alpha(t), self.beta(t));
        (db * x + (da * b - a * db) * data_mean) / b
    }

    /// One component of the velocity from the noise posterior mean `E[X_0 | X_t = x]`:
    /// `(alpha'/alpha) x + ((alpha beta' - alpha' beta) / alpha) E[X_0]`, for `0 < t <= 1`.
    pub fn velocity_from_noise(self, t: f32, x: f32, noise_mean: f32) -> f32 {
        let ((da, db), a, b) = (self.rates(t), self.alpha(t), self.beta(t));
        (da * x + (a * db - da * b) * noise_mean) / a
    }

    /// The noise posterior mean that belongs to a data posterior mean: `(x - alpha E[X_1]) / beta`.
    pub fn noise_from_data(self, t: f32, x: f32, data_mean: f32) -> f32 {
        (x - self.alpha(t) * data_mean) / self.beta(t)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_the_velocity_are_the_difference_of_the_means() {
        // On the linear path v = E[X_1] - E[X_0], whichever mean it is computed from.
        for i in 1..20 {
            let t = i as f32 / 20.0;
            let (x, data) = (0.7, -0.4);
            let noise = Schedule::Linear.noise_from_data(t, x, data);
            let difference = data - noise;
            // Dividing by t or 1 - t >= 1/20 multiplies the rounding of values near one by 20.
            assert!((Schedule::Linear.velocity_from_data(t, x, data) - difference).abs() < 5e-6);
            assert!((Schedule::Linear.velocity_from_noise(t, x, noise) - difference).abs() < 5e-6);
            assert!((t * data + (1.0 - t) * noise - x).abs() < 1e-6);
        }
        assert_eq!(Schedule::from_code(Schedule::Linear as u32), Some(Schedule::Linear));
        assert_eq!(Schedule::from_code(1), None);
    }
}
