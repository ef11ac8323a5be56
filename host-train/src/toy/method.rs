//! The methods that are compared: what each regresses on, and how it samples.
//!
//! Every one of them estimates a posterior mean from `K` evaluations of the energy with flowlet's estimator; they differ
//! in schedule, proposal, control variate and in what the network predicts:
//!
//! | method | path | estimator | prediction | sampler |
//! |---|---|---|---|---|
//! | `rfm` | linear | default, with own particles | velocity | Heun, 20 steps |
//! | `ne` noise expectation | VP cosine | source bridge, `eta = 0` | noise | ancestral, 100 steps |
//! | `ge` gradient expectation | VE | source bridge, `eta = 1` | noise | DDIM, 100 steps |
//!
//! Ancestral steps are the reverse SDE, integrated exactly for a constant prediction; DDIM is the deterministic form.
//! Each diffusion has the one that suits it better. Pure; no panics.

use flowlet::flow::{Prediction, Reverse, ReverseMethod, Schedule, Solver, Source};
use flowlet::rfm::{ControlVariate, Mixture, RfmConfig};

/// A method of sampling from an energy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Reverse Flow Matching: a flow.
    Rfm,
    /// Noise-expectation diffusion.
    NoiseExpectation,
    /// Gradient-expectation diffusion.
    GradientExpectation,
}

/// First and last flow time that a network is trained at; outside it is asked at the nearer one.
pub const TIMES: (f32, f32) = (0.005, 0.995);

/// Noise scales of the gradient-expectation diffusion: the widest covers the toys, the narrowest is finer.
const VE: Schedule = Schedule::Ve { sigma_min: 0.03, sigma_max: 2.0 };

impl Method {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Rfm, Self::NoiseExpectation, Self::GradientExpectation];

    /// The short name, in tables and pictures.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rfm => "rfm",
            Self::NoiseExpectation => "ne",
            Self::GradientExpectation => "ge",
        }
    }

    /// The path from noise to data.
    pub const fn schedule(self) -> Schedule {
        match self {
            Self::Rfm => Schedule::Linear,
            Self::NoiseExpectation => Schedule::VpCosine,
            Self::GradientExpectation => VE,
        }
    }

    /// What the network predicts.
    pub const fn prediction(self) -> Prediction {
        match self {
            Self::Rfm => Prediction::Velocity,
            Self::NoiseExpectation | Self::GradientExpectation => Prediction::Noise,
        }
    }

    /// The estimator of its posterior mean from `k` evaluations of the energy.
    pub fn estimator(self, source: Source, k: usize) -> RfmConfig {
        let bridge = RfmConfig::importance(Mixture::bridge(k));
        let config = match self {
            Self::Rfm => RfmConfig::auto(k),
            Self::NoiseExpectation => bridge,
            Self::GradientExpectation => RfmConfig { control_variate: ControlVariate::Eta(1.0), ..bridge },
        };
        RfmConfig { schedule: self.schedule(), source, ..config }
    }

    /// How it samples.
    pub fn sampler(self, source: Source) -> Reverse {
        let flow = self == Self::Rfm;
        let method = match self {
            Self::Rfm => ReverseMethod::Ode(Solver::Heun),
            Self::NoiseExpectation => ReverseMethod::Ddpm,
            Self::GradientExpectation => ReverseMethod::Ddim { eta: 0.0 },
        };
        Reverse {
            schedule: self.schedule(),
            source,
            prediction: self.prediction(),
            method,
            steps: if flow { 20 } else { 100 },
            t_start: if flow { 0.0 } else { TIMES.0 },
            t_end: if self == Self::GradientExpectation { TIMES.1 } else { 1.0 },
        }
    }
}
