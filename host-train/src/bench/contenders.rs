//! The estimators that are compared: named configurations of flowlet, and the memory they work in.
//!
//! Every one of them spends exactly K evaluations of Q, with or without its gradient, on an estimate; a test counts
//! them. They differ in where the evaluations go and in what is made of the gradients.

use crate::agent::batch::{annealed, chains};
use crate::noise::Noise;
use crate::{Error, Result};
use flowlet::rfm::{ControlVariate, EstimatorScratch, Method, Mixture, RfmConfig, Target};

/// A named estimator, for any number of evaluations.
#[derive(Clone, Copy, Debug)]
pub struct Contender {
    /// Its name in tables and JSON.
    pub name: &'static str,
    /// What it is, in a few words.
    pub what: &'static str,
    /// Whether it is given particles.
    pub particles: bool,
    /// Whether it is one of the fixed proposals without a control variate that the default is held to.
    pub fixed: bool,
    config: fn(usize) -> RfmConfig,
}

/// The published rule among them.
pub const PUBLISHED: usize = place("published");
/// flowlet's default among them.
pub const AUTO: usize = place("auto");
/// The default with particles among them.
pub const AUTO_PARTICLES: usize = place("auto+particles");

/// All of them, in the order of the tables.
pub const CONTENDERS: [Contender; 11] = [
    Contender {
        name: "published",
        what: "source bridge, diagonal coefficients, ridge 1e-4, clip 2",
        particles: false,
        fixed: false,
        config: RfmConfig::published,
    },
    Contender {
        name: "bridge eta=0",
        what: "source bridge, no control variate: the noise-expectation family",
        particles: false,
        fixed: true,
        config: |k| with(Mixture::bridge(k), ControlVariate::None),
    },
    Contender {
        name: "uniform eta=0",
        what: "uniform action, no control variate",
        particles: false,
        fixed: true,
        config: |k| with(halves(0, k), ControlVariate::None),
    },
    Contender {
        name: "half bridge half uniform eta=0",
        what: "both, balance heuristic, no control variate",
        particles: false,
        fixed: true,
        config: |k| with(halves(k / 2, k - k / 2), ControlVariate::None),
    },
    Contender {
        name: "eta=1",
        what: "source bridge, the gradient-expectation family",
        particles: false,
        fixed: false,
        config: |k| with(Mixture::bridge(k), ControlVariate::Eta(1.0)),
    },
    Contender {
        name: "mixture fisher",
        what: "half bridge half uniform, Fisher form",
        particles: false,
        fixed: false,
        config: |k| with(halves(k / 2, k - k / 2), ControlVariate::Fisher),
    },
    Contender {
        name: "ula",
        what: "chains of unadjusted Langevin steps from half the candidates, shrunk coefficients",
        particles: false,
        fixed: false,
        config: |k| method(Method::Ula(chains(k))),
    },
    Contender {
        name: "mala",
        what: "the same, Metropolis-adjusted",
        particles: false,
        fixed: false,
        config: |k| method(Method::Mala(chains(k))),
    },
    Contender {
        name: "smc",
        what: "annealed sequential Monte Carlo with resampling, shrunk coefficients",
        particles: false,
        fixed: false,
        config: |k| method(Method::Smc(annealed(k))),
    },
    Contender { name: "auto", what: "flowlet's default", particles: false, fixed: false, config: auto },
    Contender {
        name: "auto+particles",
        what: "the default with 32 particles of a flow trained by it",
        particles: true,
        fixed: false,
        config: auto,
    },
];

/// The default, with particles or without.
pub(super) fn auto(k: usize) -> RfmConfig {
    RfmConfig::auto(k)
}

impl Contender {
    /// Its configuration with `k` evaluations.
    pub fn config(&self, k: usize) -> RfmConfig {
        (self.config)(k)
    }
}

/// The place of a contender by its name; one past the last for a name that is none.
pub const fn place(name: &str) -> usize {
    let mut i = 0;
    while i < CONTENDERS.len() && !equal(CONTENDERS[i].name.as_bytes(), name.as_bytes()) {
        i += 1;
    }
    i
}

const fn equal(a: &[u8], b: &[u8]) -> bool {
    let mut i = 0;
    while i < a.len() && i < b.len() && a[i] == b[i] {
        i += 1;
    }
    i == a.len() && i == b.len()
}

fn halves(bridge: usize, uniform: usize) -> Mixture {
    Mixture { bridge, uniform, kernel: 0, ..Mixture::default() }
}

fn method(method: Method) -> RfmConfig {
    RfmConfig { method, control_variate: ControlVariate::Shrunk, ..RfmConfig::default() }
}

fn with(mixture: Mixture, control_variate: ControlVariate) -> RfmConfig {
    RfmConfig { control_variate, ..RfmConfig::importance(mixture) }
}

/// The memory of an estimate of any size up to the largest one.
#[derive(Clone, Debug)]
pub struct Memory {
    floats: Vec<f32>,
}

impl Memory {
    /// For up to `k` candidates in `dim` dimensions.
    pub fn new(dim: usize, k: usize) -> Self {
        Self { floats: vec![0.0; EstimatorScratch::len(dim, k)] }
    }

    /// One posterior mean by `config`, which has `k` evaluations.
    #[allow(clippy::too_many_arguments, reason = "the parts of one estimate")]
    pub fn estimate<T: Target>(
        &mut self,
        config: &RfmConfig,
        t: f32,
        x: &[f32],
        target: &mut T,
        particles: &[f32],
        noise: &mut Noise,
        mean: &mut [f32],
    ) -> Result<()> {
        let k = config.method.candidates();
        let refused = |why: String| {
            Error::failure(format!("flowlet refused an estimate at t = {t} with {k} evaluations ({why}): report this"))
        };
        let mut scratch = EstimatorScratch::carve(&mut self.floats, x.len(), k)
            .ok_or_else(|| refused("its memory is too small".into()))?;
        let done = config.estimate(t, x, target, particles, noise.rng(), &mut scratch, mean);
        done.map(|_| ()).map_err(|e| refused(format!("{e:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::targets::{Known, Separable};

    /// A target that counts its evaluations.
    struct Counted(Known, usize);

    impl Target for Counted {
        fn log_density(&mut self, latent: &[f32]) -> f32 {
            self.1 += 1;
            self.0.log_density(latent)
        }

        fn log_density_and_score(&mut self, latent: &[f32], score: &mut [f32]) -> f32 {
            self.1 += 1;
            self.0.log_density_and_score(latent, score)
        }
    }

    #[test]
    fn everyone_spends_k_evaluations() {
        let mut target = Counted(Known::Separable(Separable::random(2, 0.1, &mut Noise::new(1, 0))), 0);
        let mut memory = Memory::new(2, 512);
        let mut particles = [0.0; 64];
        Noise::new(2, 0).gaussian(&mut particles);
        for contender in CONTENDERS {
            for k in [4, 5, 8, 16, 96, 512] {
                for t in [0.02, 0.5, 0.98] {
                    target.1 = 0;
                    let (config, mut mean) = (contender.config(k), [f32::NAN; 2]);
                    let given = if contender.particles { &particles[..] } else { &[] };
                    let mut noise = Noise::new(3, k as u64);
                    memory.estimate(&config, t, &[0.3 * t, -0.2], &mut target, given, &mut noise, &mut mean).unwrap();
                    assert_eq!(target.1, k, "{} at t = {t}", contender.name);
                    assert!(mean.iter().all(|m| m.is_finite()), "{}", contender.name);
                }
            }
        }
    }

    #[test]
    fn names_are_found_and_differ() {
        for (i, contender) in CONTENDERS.iter().enumerate() {
            assert_eq!(place(contender.name), i);
        }
        assert_eq!(place("none of them"), CONTENDERS.len());
        assert_eq!(
            [PUBLISHED, AUTO, AUTO_PARTICLES].map(|c| CONTENDERS[c].name),
            ["published", "auto", "auto+particles"]
        );
    }
}
