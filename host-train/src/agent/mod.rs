//! The learning agent and its parts: policy samples, choice among them, posterior mean, and the update itself.
//!
//! Read [`rfm`] first, top to bottom; it is the algorithm. Everything works on normalised observations and squashed
//! actions, in batches, allocates at construction (or when first given more states than before), and takes its
//! randomness from numbered streams of one seed: the same seed on the same machine gives the same bits.

pub mod posterior;
pub mod rfm;
pub mod sampler;
pub mod select;

/// Lengthens `buffer` to `len` where it is shorter, and gives the first `len` numbers.
fn room(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}
