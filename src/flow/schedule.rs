//! Schedules `alpha(t)`, `beta(t)` of the interpolant `X_t = alpha X_1 + beta X_0`, and what follows from one posterior
//! mean: velocity, noise, data and, with a Gaussian source, score.
//!
//! Every conversion is an affine map at given `t` and `x`, written for each schedule in the form that does not cancel:
//! with `W = alpha' beta - alpha beta'`,
//!
//! ```text
//! v = (beta' x + W E[X_1]) / beta = (alpha' x - W E[X_0]) / alpha     x = alpha E[X_1] + beta E[X_0]
//! ```
//!
//! Times lie in `[0, 1]`; a conversion that divides by `alpha` needs `alpha > 0` and one that divides by `beta`
//! `beta > 0`, else its result is infinite or NaN. Pure arithmetic, no panics. Cost: linear is a handful of
//! instructions; the others take up to three elementary functions a call.

use crate::math;
use core::f32::consts::{FRAC_2_PI, FRAC_PI_2};

/// The path from source to data.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Schedule {
    /// `alpha = t`, `beta = 1 - t` (Lipman et al. 2023; Liu et al. 2023).
    #[default]
    Linear,
    /// Variance preserving: `alpha = sin(pi t / 2)`, `beta = cos(pi t / 2)` (Nichol and Dhariwal 2021, no offset).
    VpCosine,
    /// Variance preserving with a noise rate linear in `s = 1 - t`: `ln alpha = -(beta_max - beta_min) s^2 / 4 -
    /// beta_min s / 2`, `beta = sqrt(1 - alpha^2)` (Ho et al. 2020; Song et al. 2021).
    VpLinear {
        /// Noise rate at the data, 2^-10 to `beta_max`.
        beta_min: f32,
        /// Noise rate at the source, at most 64.
        beta_max: f32,
    },
    /// Variance exploding: `alpha = 1`, `beta = sigma_max (sigma_min / sigma_max)^t` (Song et al. 2021).
    Ve {
        /// Noise at the data, at least 2^-20.
        sigma_min: f32,
        /// Noise at the source, at least `2 sigma_min` and at most 1024.
        sigma_max: f32,
    },
}

/// Why a schedule is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ScheduleError {
    /// No schedule has this number.
    Code,
    /// A parameter that is not zero, where the schedule has none.
    Parameter,
    /// The noise rates are not `2^-10 <= beta_min <= beta_max <= 64`.
    Rates,
    /// The noise levels are not `2^-20 <= sigma_min`, `2 sigma_min <= sigma_max <= 1024`.
    Sigmas,
}

impl Schedule {
    /// [`VpLinear`](Self::VpLinear) with the noise rates of Ho et al. 2020: 0.1 and 20.
    pub const VP_LINEAR: Self = Self::VpLinear { beta_min: 0.1, beta_max: 20.0 };

    /// Number of the schedule in the artefact.
    pub const fn code(self) -> u32 {
        match self {
            Self::Linear => 0,
            Self::VpCosine => 1,
            Self::VpLinear { .. } => 2,
            Self::Ve { .. } => 3,
        }
    }

    /// Its parameters there: noise rates or levels, the smaller first; zeros where there are none.
    pub const fn parameters(self) -> [f32; 2] {
        match self {
            Self::Linear | Self::VpCosine => [0.0; 2],
            Self::VpLinear { beta_min, beta_max } => [beta_min, beta_max],
            Self::Ve { sigma_min, sigma_max } => [sigma_min, sigma_max],
        }
    }

    /// The schedule with this number and these parameters in the artefact, checked.
    pub fn from_code(code: u32, parameters: [f32; 2]) -> Result<Self, ScheduleError> {
        let [low, high] = parameters;
        let schedule = match code {
            0 => Self::Linear,
            1 => Self::VpCosine,
            2 => Self::VpLinear { beta_min: low, beta_max: high },
            3 => Self::Ve { sigma_min: low, sigma_max: high },
            _ => return Err(ScheduleError::Code),
        };
        schedule.check()?;
        let same = schedule.parameters().map(f32::to_bits) == parameters.map(f32::to_bits);
        if same { Ok(schedule) } else { Err(ScheduleError::Parameter) }
    }

    /// The name used on the command line and in configuration files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::VpCosine => "vp-cosine",
            Self::VpLinear { .. } => "vp-linear",
            Self::Ve { .. } => "ve",
        }
    }

    /// Checks the parameters; every other function expects ones that pass.
    pub fn check(self) -> Result<(), ScheduleError> {
        match self {
            Self::VpLinear { beta_min, beta_max }
                if !(beta_min >= 1.0 / 1024.0 && beta_min <= beta_max && beta_max <= 64.0) =>
            {
                Err(ScheduleError::Rates)
            }
            Self::Ve { sigma_min, sigma_max }
                if !(sigma_min >= 1.0 / 1_048_576.0 && sigma_max >= 2.0 * sigma_min && sigma_max <= 1024.0) =>
            {
                Err(ScheduleError::Sigmas)
            }
            _ => Ok(()),
        }
    }

    /// Weight of the data, `alpha(t)`.
    pub fn alpha(self, t: f32) -> f32 {
        match self {
            Self::Linear => t,
            Self::VpCosine => math::sin(FRAC_PI_2 * t),
            Self::VpLinear { beta_min, beta_max } => math::exp(log_alpha(beta_min, beta_max, 1.0 - t)),
            Self::Ve { .. } => 1.0,
        }
    }

    /// Weight of the source, `beta(t)`.
    pub fn beta(self, t: f32) -> f32 {
        match self {
            Self::Linear => 1.0 - t,
            // As a sine: near t = 1 the cosine would keep only absolute precision.
            Self::VpCosine => math::sin(FRAC_PI_2 * (1.0 - t)),
            Self::VpLinear { beta_min, beta_max } => {
                math::sqrt(-math::exp_m1(2.0 * log_alpha(beta_min, beta_max, 1.0 - t)))
            }
            Self::Ve { sigma_min, sigma_max } => sigma_max * math::exp(-t * math::ln(sigma_max / sigma_min)),
        }
    }

    /// Derivatives `(alpha'(t), beta'(t))`; for [`VpLinear`](Self::VpLinear) the second is `-inf` at `t = 1`.
    pub fn rates(self, t: f32) -> (f32, f32) {
        match self {
            Self::Linear => (1.0, -1.0),
            Self::VpCosine => (FRAC_PI_2 * self.beta(t), -FRAC_PI_2 * self.alpha(t)),
            Self::VpLinear { .. } => {
                let (a, rate) = (self.alpha(t), self.log_rate(t));
                (a * rate, -(a * a * rate) / self.beta(t))
            }
            Self::Ve { .. } => (0.0, -self.log_rate(t) * self.beta(t)),
        }
    }

    /// Factor of a source draw that makes it a start at `t`: `beta(t)` for [`Ve`](Self::Ve), where the data add nothing
    /// to speak of, and 1 for the others.
    ///
    /// Exact in distribution at `t = 0` for linear and VP-cosine, and up to `alpha(0)` for VP-linear.
    pub fn start_scale(self, t: f32) -> f32 {
        match self {
            Self::Ve { .. } => self.beta(t),
            _ => 1.0,
        }
    }

    /// The rate that the closed forms share: of `ln alpha` for VP-linear, of `-ln beta` for VE; not used by the others.
    fn log_rate(self, t: f32) -> f32 {
        match self {
            Self::Linear | Self::VpCosine => 0.0,
            Self::VpLinear { beta_min, beta_max } => 0.5 * ((beta_max - beta_min) * (1.0 - t) + beta_min),
            Self::Ve { sigma_min, sigma_max } => math::ln(sigma_max / sigma_min),
        }
    }

    /// One component of the velocity from the data posterior mean `E[X_1 | X_t = x]`:
    /// `(beta' x + W E[X_1]) / beta`, for `beta > 0`.
    pub fn velocity_from_data(self, t: f32, x: f32, data_mean: f32) -> f32 {
        match self {
            Self::Linear => (data_mean - x) / (1.0 - t),
            Self::VpCosine => FRAC_PI_2 * (data_mean - self.alpha(t) * x) / self.beta(t),
            Self::VpLinear { .. } => {
                let (a, b) = (self.alpha(t), self.beta(t));
                a * self.log_rate(t) * ((data_mean - a * x) / (b * b))
            }
            Self::Ve { .. } => self.log_rate(t) * (data_mean - x),
        }
    }

    /// One component of the velocity from the noise posterior mean `E[X_0 | X_t = x]`:
    /// `(alpha' x - W E[X_0]) / alpha`, for `alpha > 0`; VP-linear needs `beta > 0` as well.
    pub fn velocity_from_noise(self, t: f32, x: f32, noise_mean: f32) -> f32 {
        match self {
            Self::Linear => (x - noise_mean) / t,
            Self::VpCosine => FRAC_PI_2 * (self.beta(t) * x - noise_mean) / self.alpha(t),
            Self::VpLinear { .. } => self.log_rate(t) * (x - noise_mean / self.beta(t)),
            Self::Ve { .. } => -self.log_rate(t) * (self.beta(t) * noise_mean),
        }
    }

    /// The noise posterior mean that belongs to a data posterior mean: `(x - alpha E[X_1]) / beta`, for `beta > 0`.
    pub fn noise_from_data(self, t: f32, x: f32, data_mean: f32) -> f32 {
        (x - self.alpha(t) * data_mean) / self.beta(t)
    }

    /// The data posterior mean that belongs to a noise posterior mean: `(x - beta E[X_0]) / alpha`, for `alpha > 0`.
    pub fn data_from_noise(self, t: f32, x: f32, noise_mean: f32) -> f32 {
        (x - self.beta(t) * noise_mean) / self.alpha(t)
    }

    /// The data posterior mean that belongs to a velocity: `(beta v - beta' x) / W`, for every `t`.
    pub fn data_from_velocity(self, t: f32, x: f32, velocity: f32) -> f32 {
        match self {
            Self::Linear => x + (1.0 - t) * velocity,
            Self::VpCosine => self.alpha(t) * x + FRAC_2_PI * self.beta(t) * velocity,
            Self::VpLinear { .. } => {
                let (a, b) = (self.alpha(t), self.beta(t));
                a * x + b * b * velocity / (a * self.log_rate(t))
            }
            Self::Ve { .. } => x + velocity / self.log_rate(t),
        }
    }

    /// The noise posterior mean that belongs to a velocity: `(alpha' x - alpha v) / W`, for every `t`.
    pub fn noise_from_velocity(self, t: f32, x: f32, velocity: f32) -> f32 {
        match self {
            Self::Linear => x - t * velocity,
            Self::VpCosine => self.beta(t) * x - FRAC_2_PI * self.alpha(t) * velocity,
            Self::VpLinear { .. } => self.beta(t) * (x - velocity / self.log_rate(t)),
            Self::Ve { .. } => -velocity / (self.log_rate(t) * self.beta(t)),
        }
    }

    /// Score of the marginal at `t` with a Gaussian source, `-E[X_0 | X_t = x] / beta`, for `beta > 0`.
    pub fn score_from_noise(self, t: f32, noise_mean: f32) -> f32 {
        -noise_mean / self.beta(t)
    }

    /// Noise posterior mean of a Gaussian source from the score, `-beta` times it.
    pub fn noise_from_score(self, t: f32, score: f32) -> f32 {
        -self.beta(t) * score
    }

    /// Velocity with a Gaussian source from the score, `(alpha' x + W beta score) / alpha`, for `alpha > 0`.
    pub fn velocity_from_score(self, t: f32, x: f32, score: f32) -> f32 {
        match self {
            Self::VpLinear { .. } => self.log_rate(t) * (x + score),
            _ => self.velocity_from_noise(t, x, self.noise_from_score(t, score)),
        }
    }

    /// Square of the diffusion coefficient of the forward process whose marginals these are with a Gaussian source,
    /// `2 beta W / alpha`, for `alpha > 0` (Song et al. 2021): the noise rate of a VP schedule.
    pub fn diffusion(self, t: f32) -> f32 {
        match self {
            Self::Linear => 2.0 * (1.0 - t) / t,
            Self::VpCosine => 2.0 * FRAC_PI_2 * self.beta(t) / self.alpha(t),
            Self::VpLinear { .. } => 2.0 * self.log_rate(t),
            Self::Ve { .. } => {
                let b = self.beta(t);
                2.0 * self.log_rate(t) * (b * b)
            }
        }
    }
}

/// `ln alpha` of [`Schedule::VpLinear`] at `s = 1 - t`.
fn log_alpha(beta_min: f32, beta_max: f32, s: f32) -> f32 {
    -s * (0.25 * (beta_max - beta_min) * s + 0.5 * beta_min)
}

impl core::fmt::Display for ScheduleError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Code => "there is no schedule with this number",
            Self::Parameter => "this schedule has no parameters: they must be zero",
            Self::Rates => "the noise rates must satisfy 2^-10 <= beta_min <= beta_max <= 64",
            Self::Sigmas => "the noise levels must satisfy 2^-20 <= sigma_min, 2 sigma_min <= sigma_max <= 1024",
        })
    }
}

impl core::error::Error for ScheduleError {}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Schedule; 6] = [
        Schedule::Linear,
        Schedule::VpCosine,
        Schedule::VP_LINEAR,
        Schedule::VpLinear { beta_min: 1.0, beta_max: 1.0 },
        Schedule::Ve { sigma_min: 0.01, sigma_max: 50.0 },
        Schedule::Ve { sigma_min: 1e-5, sigma_max: 1.0 },
    ];

    /// `(alpha, beta)` in double precision, from the definitions.
    fn exact(schedule: Schedule, t: f64) -> (f64, f64) {
        let half_pi = core::f64::consts::FRAC_PI_2;
        match schedule {
            Schedule::Linear => (t, 1.0 - t),
            Schedule::VpCosine => ((half_pi * t).sin(), (half_pi * t).cos()),
            Schedule::VpLinear { beta_min, beta_max } => {
                let (low, high, s) = (f64::from(beta_min), f64::from(beta_max), 1.0 - t);
                let ln = -(high - low) * s * s / 4.0 - low * s / 2.0;
                (ln.exp(), (-(2.0 * ln).exp_m1()).sqrt())
            }
            Schedule::Ve { sigma_min, sigma_max } => {
                (1.0, f64::from(sigma_max) * f64::from(sigma_min / sigma_max).powf(t))
            }
        }
    }

    /// Times from 2^-20 after the start to 2^-20 before the end.
    fn times() -> impl Iterator<Item = f32> {
        (1..=20).flat_map(|i| [0.5f32.powi(i), 1.0 - 0.5f32.powi(i), i as f32 / 21.0])
    }

    #[test]
    fn weights_and_rates_agree_with_the_definitions() {
        for schedule in ALL {
            for t in times().chain([0.0, 1.0]) {
                let (a, b) = exact(schedule, f64::from(t));
                let relative = |found: f32, exact: f64| (f64::from(found) - exact).abs() / exact.abs().max(1e-12);
                // An exponent as large as 12 is rounded to 1e-6; 1 - t and ends are relative too, that is the point.
                assert!(relative(schedule.alpha(t), a) < 2e-6, "{schedule:?} {t}: {a}");
                if t < 1.0 || matches!(schedule, Schedule::Ve { .. }) {
                    assert!(relative(schedule.beta(t), b) < 2e-6, "{schedule:?} {t}: {b} {}", schedule.beta(t));
                } else {
                    assert_eq!(schedule.beta(t), 0.0);
                }
                if !(1e-4..=0.9999).contains(&t) {
                    continue;
                }
                // Central differences in double precision: h^2/6 times a third derivative, which near an end is the
                // weight's own over the distance cubed.
                let h = 1e-3 * f64::from(t.min(1.0 - t));
                let slope = |f: fn((f64, f64)) -> f64| {
                    (f(exact(schedule, f64::from(t) + h)) - f(exact(schedule, f64::from(t) - h))) / (2.0 * h)
                };
                let (da, db) = schedule.rates(t);
                assert!(
                    (f64::from(da) - slope(|w| w.0)).abs() < 1e-5 * (1.0 + slope(|w| w.0).abs()),
                    "{schedule:?} {t}"
                );
                assert!(
                    (f64::from(db) - slope(|w| w.1)).abs() < 1e-5 * (1.0 + slope(|w| w.1).abs()),
                    "{schedule:?} {t}"
                );
            }
            if !matches!(schedule, Schedule::Linear | Schedule::Ve { .. }) {
                for t in times() {
                    let (a, b) = (schedule.alpha(t), schedule.beta(t));
                    assert!((a * a + b * b - 1.0).abs() < 3e-7, "{schedule:?} {t}");
                }
            }
        }
    }

    #[test]
    fn every_conversion_agrees_with_the_general_formula() {
        for schedule in ALL {
            for t in times() {
                let (a, b) = exact(schedule, f64::from(t));
                if a < 1e-3 || b < 1e-3 {
                    continue;
                }
                // The rates in double precision from the schedule's f32: known to 2e-6 by the test above.
                let (da, db) = (f64::from(schedule.rates(t).0), f64::from(schedule.rates(t).1));
                let (data, noise) = (-0.4f64, 0.9f64);
                let x = a * data + b * noise;
                // v = alpha' X_1 + beta' X_0 when both means are known.
                let v = da * data + db * noise;
                let [x, data, noise, v, score] = [x, data, noise, v, -noise / b].map(|z| z as f32);
                // A result is the difference of two terms of these sizes, each of which rounds to some 1e-6 of itself.
                let (weight, size) = ((a * b) as f32, 1.0 + x.abs() + v.abs());
                let limit = 4e-6 * size * (1.0 + 1.0 / weight) * (1.0 + (da.abs() + db.abs()) as f32);
                for (name, found, expected) in [
                    ("velocity from data", schedule.velocity_from_data(t, x, data), v),
                    ("velocity from noise", schedule.velocity_from_noise(t, x, noise), v),
                    ("velocity from score", schedule.velocity_from_score(t, x, score), v),
                    ("noise from data", schedule.noise_from_data(t, x, data), noise),
                    ("data from noise", schedule.data_from_noise(t, x, noise), data),
                    ("data from velocity", schedule.data_from_velocity(t, x, v), data),
                    ("noise from velocity", schedule.noise_from_velocity(t, x, v), noise),
                    ("score from noise", schedule.score_from_noise(t, noise), score),
                    ("noise from score", schedule.noise_from_score(t, score), noise),
                ] {
                    assert!((found - expected).abs() < limit, "{schedule:?} {t}: {name}: {found} {expected} {limit}");
                }
                let diffusion = 2.0 * b * (da * b - a * db) / a;
                let found = f64::from(schedule.diffusion(t));
                assert!((found - diffusion).abs() < 1e-4 * diffusion, "{schedule:?} {t}: {found} {diffusion}");
            }
        }
    }

    #[test]
    fn the_ends_are_sound() {
        for schedule in ALL {
            // At the start the velocity from data, and at every time the two means from a velocity, are finite.
            let v = schedule.velocity_from_data(0.0, 0.3, -0.4);
            assert!(v.is_finite(), "{schedule:?}");
            for t in [0.0, 1.0] {
                if schedule.beta(t) > 0.0 || !matches!(schedule, Schedule::VpLinear { .. }) {
                    assert!(schedule.data_from_velocity(t, 0.3, 0.7).is_finite());
                    assert!(schedule.noise_from_velocity(t, 0.3, 0.7).is_finite());
                }
            }
            assert!(schedule.alpha(0.0) <= 1.0 && schedule.alpha(1.0) == 1.0);
        }
        let ve = Schedule::Ve { sigma_min: 0.01, sigma_max: 50.0 };
        assert_eq!((ve.start_scale(0.0), ve.start_scale(0.5)), (50.0, ve.beta(0.5)));
        assert_eq!(Schedule::VpCosine.start_scale(0.1), 1.0);
        // The textbook end of the diffusion of Ho et al.: alpha_bar = exp(-(0.1 + 20)/2) = 4.3e-5.
        let a = f64::from(Schedule::VP_LINEAR.alpha(0.0));
        assert!((a * a / (-10.05f64).exp() - 1.0).abs() < 3e-6);
    }

    #[test]
    fn codes_are_unique_and_bad_parameters_are_named() {
        for schedule in ALL {
            assert_eq!(Schedule::from_code(schedule.code(), schedule.parameters()), Ok(schedule));
        }
        for (code, parameters, error) in [
            (4, [0.0; 2], ScheduleError::Code),
            (0, [1.0, 0.0], ScheduleError::Parameter),
            (1, [0.0, f32::NAN], ScheduleError::Parameter),
            (2, [0.0, 1.0], ScheduleError::Rates),
            (2, [2.0, 1.0], ScheduleError::Rates),
            (2, [0.1, 65.0], ScheduleError::Rates),
            (2, [f32::NAN, 1.0], ScheduleError::Rates),
            (2, [0.1, f32::NAN], ScheduleError::Rates),
            (3, [0.0, 1.0], ScheduleError::Sigmas),
            (3, [1.0, 1.5], ScheduleError::Sigmas),
            (3, [0.1, 2000.0], ScheduleError::Sigmas),
            (3, [0.1, f32::NAN], ScheduleError::Sigmas),
        ] {
            assert_eq!(Schedule::from_code(code, parameters), Err(error), "{code} {parameters:?}");
        }
    }
}
