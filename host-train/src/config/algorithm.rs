//! The algorithms by name, each with its constants: the one list that everything else follows.

use super::{DqsConfig, QneConfig, QsmConfig, QvpoConfig, RfmConfig, SacConfig, TrainConfig};
use crate::{Error, Result};
use toml::{Table, Value};

/// Declares the algorithms: the enum over their configurations, and what goes by name.
macro_rules! algorithms {
    ($($(#[$doc:meta])* $variant:ident($config:ident) = $name:literal,)+) => {
        /// The names of the algorithms that can be trained.
        pub const ALGORITHMS: &[&str] = &[$($name),+];

        /// One algorithm with its constants.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Algorithm {
            $($(#[$doc])* $variant($config),)+
        }

        impl Algorithm {
            /// The constants of a preset (`default` or `paper`).
            pub fn preset(name: &str, preset: &str) -> Result<Self> {
                match (name, preset) {
                    $(
                        ($name, "default") => Ok(Self::$variant($config::standard())),
                        ($name, "paper") => Ok(Self::$variant($config::paper())),
                    )+
                    _ if ALGORITHMS.contains(&name) => Err(Error::usage(format!(
                        "unknown preset {preset:?}: use one of {}",
                        super::PRESETS.join(", ")
                    ))),
                    _ => Err(Error::usage(format!(
                        "unknown algorithm {name:?}: use one of {}",
                        ALGORITHMS.join(", ")
                    ))),
                }
            }

            /// The recommended constants of a task that asks for the larger ones.
            pub(super) fn enlarge(&mut self) {
                self.train_mut().enlarge();
                if let Self::Rfm(config) = self {
                    config.enlarge();
                }
            }

            /// The name on the command line, which is also its section of `config.toml`.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)+
                }
            }

            /// What it shares with the others.
            pub fn train(&self) -> &TrainConfig {
                match self {
                    $(Self::$variant(config) => &config.train,)+
                }
            }

            /// What it shares with the others, to be changed.
            pub fn train_mut(&mut self) -> &mut TrainConfig {
                match self {
                    $(Self::$variant(config) => &mut config.train,)+
                }
            }

            /// Its section of `config.toml`.
            pub(super) fn section(&self) -> Table {
                let table = match self {
                    $(Self::$variant(config) => Table::try_from(config),)+
                };
                table.expect("constants have string keys and finite depth")
            }

            /// The algorithm called `name` from its section.
            pub(super) fn from_section(name: &str, section: Value) -> std::result::Result<Self, toml::de::Error> {
                match name {
                    $($name => section.try_into().map(Self::$variant),)+
                    _ => Err(serde::de::Error::custom(format!("unknown algorithm {name:?}"))),
                }
            }

            /// Refuses constants that no run could use.
            pub(super) fn check(&self) -> Result<()> {
                self.train().check(self.name())?;
                match self {
                    $(Self::$variant(config) => config.check(),)+
                }
            }
        }
    };
}

algorithms! {
    /// Reverse Flow Matching.
    Rfm(RfmConfig) = "rfm",
    /// Soft actor-critic.
    Sac(SacConfig) = "sac",
    /// Q-score matching.
    Qsm(QsmConfig) = "qsm",
    /// Q-weighted noise estimation (MaxEntDP).
    Qne(QneConfig) = "qne",
    /// Diffusion Q-sampling.
    Dqs(DqsConfig) = "dqs",
    /// Q-weighted variational policy optimisation.
    Qvpo(QvpoConfig) = "qvpo",
}
