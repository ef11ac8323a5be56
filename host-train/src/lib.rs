//! host-train: trains a flow-matching policy on a PC, evaluates it with flowlet's own sampler and exports it.
//!
//! The library is what the `host-train` binary is made of: environments, the configuration, the trainer, the run
//! folder, the command line. Errors are one sentence that says what to do and know whether the user or the world was
//! at fault ([`Error`]). Nothing here runs on a robot; what does is in `flowlet` and `plants`.

pub mod agent;
pub mod bench;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod curve;
pub mod distill;
pub mod env;
pub mod evaluate;
pub mod export;
pub mod finetune;
pub mod fleet;
pub mod hil;
pub mod nn;
pub mod noise;
pub mod normaliser;
pub mod policy;
pub mod profile;
pub mod quantise;
pub mod records;
#[cfg(feature = "render")]
pub mod render;
pub mod replay;
pub mod report;
pub mod run;
pub mod session;
pub mod state;
pub mod stats;
pub mod tensorboard;
pub mod toy;
pub mod train;
pub mod transitions;

use std::fmt;

/// What went wrong, in one sentence that says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The command was wrong: an unknown name, a value out of range, a file that is not what was asked for.
    Usage(String),
    /// The command was right and could not be carried out, or a check failed.
    Failure(String),
    /// The user broke it off; what was reached is kept.
    Interrupted(String),
}

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Wrong use.
    pub fn usage(sentence: impl Into<String>) -> Self {
        Self::Usage(sentence.into())
    }

    /// A failure.
    pub fn failure(sentence: impl Into<String>) -> Self {
        Self::Failure(sentence.into())
    }

    /// The process exit code: 2 for wrong use, 1 for failure, 130 after Ctrl-C as shells expect it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Failure(_) => 1,
            Self::Interrupted(_) => 130,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(sentence) | Self::Failure(sentence) | Self::Interrupted(sentence) => f.write_str(sentence),
        }
    }
}

impl std::error::Error for Error {}

impl From<flowlet::policy::PolicyError> for Error {
    fn from(error: flowlet::policy::PolicyError) -> Self {
        Self::failure(error.to_string())
    }
}
