//! Static networks: layers and their kernels, the velocity network, the critic and its action gradient.
//!
//! Networks are views over flat `f32` slices in one documented order, so the same code runs on weights in flash,
//! in RAM and on a PC. Weights are column-major: `w[j * rows + i]` leads from input `j` to output `i`. Every sum
//! starts from the bias and adds the inputs in order, on every machine, which is what makes results equal bit for
//! bit. Nothing here panics or allocates; the caller lends the scratch memory.

mod activation;
mod critic;
pub(crate) mod kernel;
mod number;
mod quantise;
mod quantised;
mod velocity;

pub use activation::{Activation, Trunk};
pub use critic::{Critic, CriticScratch, CriticShape};
pub use kernel::{LANES, dense, gemv_add};
pub use number::{NumberFormat, Velocity};
pub use quantise::{Calibration, QuantiseError, quantise};
pub use quantised::QuantisedNet;
pub use velocity::{VelocityNet, VelocityShape};

/// Why a network cannot be built over the slices it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ShapeError {
    /// A width or the number of hidden layers is zero.
    Empty,
    /// The parameter slice does not have the length that the shape asks for.
    Parameters {
        /// Length the shape asks for, in floats.
        expected: usize,
        /// Length that was given.
        found: usize,
    },
    /// The number of time frequencies differs from the shape's.
    Frequencies,
    /// An int8 network is less than four units wide.
    Narrow,
    /// A layer of an int8 network has so many inputs that a sum could overflow.
    Wide,
    /// Something of an int8 network has a value that the format does not allow.
    Value(&'static str),
}

impl core::fmt::Display for ShapeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Empty => f.write_str("a network needs at least one input, output, hidden unit and hidden layer"),
            Self::Parameters { expected, found } => {
                write!(f, "the network's shape needs {expected} parameters, but {found} were given")
            }
            Self::Narrow => f.write_str("an int8 network needs hidden layers of at least 4 units"),
            Self::Wide => f.write_str("a layer of an int8 network takes at most 1792 inputs"),
            Self::Value(what) => write!(f, "the network's {what} have a value that the format does not allow"),
            Self::Frequencies => f.write_str("the list of time frequencies differs in length from the network's shape"),
        }
    }
}

impl core::error::Error for ShapeError {}

/// Parameters of a multilayer perceptron: a matrix and a bias for each hidden layer and the output.
///
/// Saturating, so that sizes nobody can have end in a refusal by length and not in an overflow.
pub(crate) const fn dense_params(inputs: usize, hidden: usize, layers: usize, outputs: usize) -> usize {
    let first = inputs.saturating_add(1).saturating_mul(hidden);
    let trunk = layers.saturating_sub(1).saturating_mul(hidden.saturating_add(1)).saturating_mul(hidden);
    first.saturating_add(trunk).saturating_add(hidden.saturating_add(1).saturating_mul(outputs))
}

/// Takes the first `n` elements off `rest`; an empty slice when there are fewer, which callers exclude beforehand.
pub(crate) fn take<'a>(rest: &mut &'a [f32], n: usize) -> &'a [f32] {
    match rest.split_at_checked(n) {
        Some((head, tail)) => {
            *rest = tail;
            head
        }
        None => &[],
    }
}
