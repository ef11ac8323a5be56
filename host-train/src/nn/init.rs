//! Orthogonal initialisation of a weight matrix.
//!
//! The rows or the columns (whichever are fewer) of the matrix are orthonormal, times a gain: the Q of a Gaussian
//! matrix's QR decomposition, with the signs that make it uniform. Allocates; deterministic given the stream.

use crate::noise::Noise;

/// Fills the flat `inputs x outputs` matrix `w` (each input's column contiguous) with an orthogonal one times `gain`.
pub fn orthogonal(w: &mut [f32], inputs: usize, outputs: usize, gain: f32, noise: &mut Noise) {
    assert_eq!(w.len(), inputs * outputs);
    let (count, length) = (inputs.min(outputs), inputs.max(outputs));
    let mut gaussian = vec![0.0_f32; count * length];
    noise.gaussian(&mut gaussian);
    let mut q: Vec<f64> = gaussian.iter().map(|&g| f64::from(g)).collect();
    // Modified Gram-Schmidt on `count` vectors of `length`, each projected twice: orthogonal to rounding. Its R has a
    // positive diagonal, which is the sign convention that makes Q uniform over the orthogonal matrices.
    for i in 0..count {
        let (done, rest) = q.split_at_mut(i * length);
        let vector = &mut rest[..length];
        for _ in 0..2 {
            for other in done.chunks_exact(length) {
                let dot: f64 = other.iter().zip(vector.iter()).map(|(a, b)| a * b).sum();
                vector.iter_mut().zip(other).for_each(|(v, o)| *v -= dot * o);
            }
        }
        let norm = vector.iter().map(|v| v * v).sum::<f64>().sqrt();
        vector.iter_mut().for_each(|v| *v /= norm);
    }
    for input in 0..inputs {
        for output in 0..outputs {
            let at = if inputs <= outputs { input * length + output } else { output * length + input };
            w[input * outputs + output] = gain * q[at] as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fewer_side_is_orthonormal() {
        for (inputs, outputs) in [(4, 64), (64, 64), (30, 6), (1, 5), (5, 1)] {
            let mut w = vec![0.0; inputs * outputs];
            orthogonal(&mut w, inputs, outputs, 2.0, &mut Noise::new(9, 0));
            let count = inputs.min(outputs);
            for a in 0..count {
                for b in 0..count {
                    let dot: f32 = if inputs <= outputs {
                        (0..outputs).map(|o| w[a * outputs + o] * w[b * outputs + o]).sum()
                    } else {
                        (0..inputs).map(|i| w[i * outputs + a] * w[i * outputs + b]).sum()
                    };
                    let want = if a == b { 4.0 } else { 0.0 };
                    assert!((dot - want).abs() < 1e-5, "{inputs}x{outputs}: {a}.{b} = {dot}");
                }
            }
        }
    }
}
