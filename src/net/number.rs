//! A velocity network in the number format of its artefact.
//!
//! One interface for all of them, which the sampler evaluates. Between its calls the first layer's parts lie in words that
//! only the network reads: floats in [`NumberFormat::F32`], integer sums in [`NumberFormat::Int8`]. No panics, no allocation.

use super::{QuantisedNet, VelocityNet, VelocityShape};

/// Whether programs can evaluate int8. Without it the reader refuses such artefacts, and a network made by other means
/// gives NaN, which the sampler reports.
const LINKED: bool = cfg!(feature = "int8");

/// The number format of a network, with its number in the artefact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u32)]
pub enum NumberFormat {
    /// Single precision throughout.
    #[default]
    F32 = 0,
    /// 8-bit weights, 16-bit activations, 32-bit sums.
    Int8 = 1,
}

impl NumberFormat {
    /// The format with this number in the artefact.
    pub const fn from_code(code: u32) -> Option<Self> {
        match code {
            0 => Some(Self::F32),
            1 => Some(Self::Int8),
            _ => None,
        }
    }

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Int8 => "int8",
        }
    }
}

/// A velocity network of one of the formats.
#[derive(Debug, Clone, Copy)]
pub enum Velocity<'a> {
    /// In single precision.
    F32(VelocityNet<'a>),
    /// In int8.
    Int8(QuantisedNet<'a>),
}

impl<'a> From<VelocityNet<'a>> for Velocity<'a> {
    fn from(net: VelocityNet<'a>) -> Self {
        Self::F32(net)
    }
}

impl<'a> From<QuantisedNet<'a>> for Velocity<'a> {
    fn from(net: QuantisedNet<'a>) -> Self {
        Self::Int8(net)
    }
}

impl<'a> Velocity<'a> {
    /// The number format.
    pub fn format(&self) -> NumberFormat {
        match self {
            Self::F32(_) => NumberFormat::F32,
            Self::Int8(_) => NumberFormat::Int8,
        }
    }

    /// The network in single precision; none for another format.
    pub fn as_f32(&self) -> Option<&VelocityNet<'a>> {
        match self {
            Self::F32(net) => Some(net),
            Self::Int8(_) => None,
        }
    }

    /// The shape.
    pub fn shape(&self) -> &VelocityShape {
        match self {
            Self::F32(net) => net.shape(),
            Self::Int8(net) => net.shape(),
        }
    }

    /// The time frequencies, in radians per unit of flow time.
    pub fn frequencies(&self) -> &'a [f32] {
        match self {
            Self::F32(net) => net.frequencies(),
            Self::Int8(net) => net.frequencies(),
        }
    }

    /// The first layer's part of the normalised observation `s` and the bias, into `H` words.
    #[inline]
    pub fn state_part(&self, s: &[f32], out: &mut [f32]) {
        match self {
            Self::F32(net) => net.state_part(s, out),
            Self::Int8(net) if LINKED => net.state_part(s, out),
            Self::Int8(_) => {}
        }
    }

    /// The first layer's part of the flow time `t`, into `H` words.
    pub fn time_part(&self, t: f32, out: &mut [f32]) {
        match self {
            Self::F32(net) => net.time_part(t, out),
            Self::Int8(net) if LINKED => net.time_part(t, out),
            Self::Int8(_) => {}
        }
    }

    /// `base = state part + time part`, each of `H` words.
    #[inline]
    pub fn join(&self, state: &[f32], time: &[f32], base: &mut [f32]) {
        match self {
            Self::F32(net) => net.join(state, time, base),
            Self::Int8(net) if LINKED => net.join(state, time, base),
            Self::Int8(_) => {}
        }
    }

    /// `v = v(x, t, s)` from the joined parts and the latent `x`; `a` and `b` are scratch of `H` words.
    ///
    /// In single precision the result may be infinite or NaN when weights overflow; in int8 it is finite. Without the
    /// feature `int8` a network of that format gives NaN.
    #[inline]
    pub fn velocity(&self, base: &[f32], x: &[f32], a: &mut [f32], b: &mut [f32], v: &mut [f32]) {
        match self {
            Self::F32(net) => net.velocity(base, x, a, b, v),
            Self::Int8(net) if LINKED => net.velocity(base, x, a, b, v),
            Self::Int8(_) => v.fill(f32::NAN),
        }
    }
}
