//! Control-variate coefficients on the data side: `E[X_1] ~ m + c * s` with the weighted means `m` of the candidates
//! and `s` of their posterior scores.
//!
//! `E_q[s] = 0` for any target whose density vanishes at the edge of its support, so every constant `c` is unbiased
//! under exact weights. The forms differ in how they choose it. No panics, no allocation.

/// How the coefficient of the control variate is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum ControlVariate {
    /// `c = 0`: the noise-expectation family; no score is evaluated.
    #[default]
    None,
    /// `c = eta beta^2 / alpha^2`; `eta = 1` is the gradient-expectation family.
    Eta(f32),
    /// The plug-in estimate of the variance-optimal diagonal, with the published ridge and clip as its usual
    /// arguments: `c_j = clip(- sum w^2 (y - m)_j (s - s_bar)_j / (sum w^2 (s - s_bar)_j^2 + ridge), -clip, clip)`.
    Diagonal {
        /// Added to the denominator; 1e-4 in the paper.
        ridge: f32,
        /// Largest magnitude of a coefficient; 2 in the paper.
        clip: f32,
    },
    /// `c_j = 1 / sum w s_j^2`: the optimum for uniform weights, since `E_q[(y - m) s^T] = -I`. Never negative.
    Fisher,
}

impl ControlVariate {
    /// Whether the form needs the candidates' scores.
    pub fn needs_scores(&self) -> bool {
        !matches!(self, Self::None)
    }

    /// Whether its constants are finite and of the right sign.
    pub fn is_valid(&self) -> bool {
        match self {
            Self::None | Self::Fisher => true,
            Self::Eta(eta) => eta.is_finite(),
            Self::Diagonal { ridge, clip } => *ridge > 0.0 && ridge.is_finite() && *clip >= 0.0 && clip.is_finite(),
        }
    }

    /// The coefficient of one component, from an iterator over `(weight, candidate, score)` of that component, the
    /// weighted means of candidates and scores, and `beta / alpha`.
    pub(super) fn coefficient(
        &self,
        samples: impl Iterator<Item = (f32, f32, f32)>,
        mean: f32,
        score_mean: f32,
        ratio: f32,
    ) -> f32 {
        match *self {
            Self::None => 0.0,
            Self::Eta(eta) => eta * ratio * ratio,
            Self::Diagonal { ridge, clip } => {
                let (mut cross, mut square) = (0.0, ridge);
                for (w, y, s) in samples {
                    let centred = w * (s - score_mean);
                    cross += w * (y - mean) * centred;
                    square += centred * centred;
                }
                crate::math::clip(-cross / square, clip)
            }
            Self::Fisher => {
                let information: f32 = samples.map(|(w, _, s)| w * s * s).sum();
                // No information, no correction: the scores are all zero, and so is their mean.
                if information > 0.0 { 1.0 / information } else { 0.0 }
            }
        }
    }
}
