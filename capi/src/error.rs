//! The error codes, and a sentence for each.

use core::ffi::{CStr, c_char};
use flowlet::flow::SampleError;
use flowlet::policy::{ArtefactError, PolicyError};

/// What a function of flowlet returns: zero, or why it did nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub enum flowlet_error {
    /// Done.
    FLOWLET_OK = 0,
    /// A pointer is NULL.
    FLOWLET_NULL = 1,
    /// A pointer is not aligned: floats and artefacts to 4 bytes, lent memory to 8.
    FLOWLET_MISALIGNED = 2,
    /// The lent memory is shorter than the size function says.
    FLOWLET_MEMORY = 3,
    /// Two areas that must lie apart overlap, or an area is longer than memory can be.
    FLOWLET_OVERLAP = 4,
    /// The handle was not opened, or its memory was moved or overwritten.
    FLOWLET_NOT_OPEN = 5,
    /// An array does not have as many numbers as the policy has channels.
    FLOWLET_LENGTH = 6,
    /// There is no channel of that index.
    FLOWLET_INDEX = 7,
    /// The bytes are not an artefact: the magic number is missing.
    FLOWLET_NO_ARTEFACT = 8,
    /// The artefact has a format version that this library does not know.
    FLOWLET_VERSION = 9,
    /// The artefact is truncated or damaged.
    FLOWLET_DAMAGED = 10,
    /// A field of the artefact has a value that the format does not allow.
    FLOWLET_FORMAT = 11,
    /// An observation is NaN or infinite.
    FLOWLET_OBSERVATION = 12,
    /// The self-test gave other bits than the artefact expects.
    FLOWLET_SELF_TEST = 13,
    /// The network overflowed: its weights are not those of a trained one.
    FLOWLET_NETWORK = 14,
    /// Limits are reversed, not numbers, not above zero, or exclude fallback or stop.
    FLOWLET_LIMITS = 15,
}

use flowlet_error::*;

impl From<PolicyError> for flowlet_error {
    fn from(error: PolicyError) -> Self {
        match error {
            PolicyError::Artefact(error) => error.into(),
            PolicyError::Observation { .. } => FLOWLET_OBSERVATION,
            PolicyError::SelfTest => FLOWLET_SELF_TEST,
            PolicyError::Length { .. } => FLOWLET_LENGTH,
            PolicyError::Sample(SampleError::NonFiniteVelocity) => FLOWLET_NETWORK,
            PolicyError::Sample(_) => FLOWLET_MEMORY,
            _ => FLOWLET_FORMAT,
        }
    }
}

impl From<ArtefactError> for flowlet_error {
    fn from(error: ArtefactError) -> Self {
        match error {
            ArtefactError::Misaligned => FLOWLET_MISALIGNED,
            ArtefactError::Magic => FLOWLET_NO_ARTEFACT,
            ArtefactError::Version { .. } => FLOWLET_VERSION,
            ArtefactError::TooShort | ArtefactError::Length { .. } | ArtefactError::Crc => FLOWLET_DAMAGED,
            _ => FLOWLET_FORMAT,
        }
    }
}

/// What a function ends with.
pub(crate) fn code(result: Result<(), flowlet_error>) -> flowlet_error {
    match result {
        Ok(()) => FLOWLET_OK,
        Err(error) => error,
    }
}

/// A sentence for an error code, in static memory.
#[unsafe(no_mangle)]
pub extern "C" fn flowlet_error_text(error: i32) -> *const c_char {
    const TEXTS: [&CStr; 16] = [
        c"done",
        c"a pointer is NULL",
        c"a pointer is not aligned: floats and artefacts to 4 bytes, lent memory to 8",
        c"the lent memory is shorter than the size function says",
        c"two areas that must lie apart overlap, or an area is longer than memory can be",
        c"the handle was not opened, or its memory was moved or overwritten",
        c"an array does not have as many numbers as the policy has channels",
        c"there is no channel of that index",
        c"this is not a flowlet artefact: the magic number is missing",
        c"the artefact has a format version that this library does not know: update it",
        c"the artefact is truncated or damaged",
        c"a field of the artefact has a value that the format does not allow",
        c"an observation is NaN or infinite: check that sensor",
        c"the self-test gave other bits than the artefact expects: this machine does not compute what was measured",
        c"the network overflowed: its weights are not those of a trained one",
        c"limits are reversed, not numbers, not above zero, or exclude fallback or stop",
    ];
    let known = usize::try_from(error).ok().and_then(|index| TEXTS.get(index));
    known.unwrap_or(&c"flowlet has no such error").as_ptr()
}
