//! The learning agent and its parts: policy samples, choice among them, posterior mean, and the update itself.
//!
//! Read [`rfm`] first, top to bottom; it is the algorithm. Everything works on normalised observations and squashed
//! actions, in batches, allocates at construction (or when first given more states than before), and takes its
//! randomness from numbered streams of one seed: the same seed on the same machine gives the same bits.

pub mod batch;
pub mod posterior;
pub mod rfm;
pub mod sampler;
pub mod select;

use crate::config::{RfmConfig, Trunk};
use crate::nn::critic::CriticShape;
use crate::nn::hidden::Hidden;
use crate::nn::velocity::VelocityShape;

/// The velocity network that a configuration asks for.
pub fn velocity_shape(config: &RfmConfig, obs: usize, act: usize) -> VelocityShape {
    let constant = if config.constant_embedding {
        // The features of the temperature at the start, at the frequencies of the time features.
        let angles = config.frequencies.iter().map(|f| f * config.temperature as f32);
        angles.clone().map(f32::sin).chain(angles.map(f32::cos)).collect()
    } else {
        Vec::new()
    };
    let hidden = Hidden {
        width: config.actor_hidden,
        layers: config.actor_layers,
        outputs: act,
        activation: config.activation,
        trunk: config.trunk,
        layer_norm: false,
    };
    VelocityShape { obs, act, frequencies: config.frequencies.clone(), constant, hidden }
}

/// The critics that a configuration asks for.
pub fn critic_shape(config: &RfmConfig, obs: usize, act: usize) -> CriticShape {
    let hidden = Hidden {
        width: config.critic_hidden,
        layers: config.critic_layers,
        outputs: 1,
        activation: config.critic_activation,
        trunk: Trunk::Plain,
        layer_norm: config.critic_layer_norm,
    };
    CriticShape { obs, act, hidden }
}

/// Lengthens `buffer` to `len` where it is shorter, and gives the first `len` numbers.
fn room(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}
