//! Which way each weight of a layer is rounded: so that the layer's sums stay what they were, at inputs that it meets.
//!
//! Rounding every weight to the nearest integer makes errors that add up in a sum as its inputs have it. Here a row is rounded
//! weight by weight, and the error of each is taken back by those that are still to be rounded, as far as their inputs go
//! together with its own: the column-wise least squares of optimal brain quantisation in the order of GPTQ (Frantar et al., arXiv
//! 2210.17323). The bias takes up what is left of the mean. The inputs are those of the rounded layers before, the wanted sums
//! those of the layers as they were, so that a layer also mends what the earlier ones broke.
//!
//! The result is a network in f32 whose weights are whole multiples of the unit that `flowlet::net::quantise` finds for their row:
//! the largest weight of a row keeps its value, 127 units. Deterministic. No panics. Costs `n inputs^2` multiplications a layer
//! for `n` points, and `inputs^3` once.

use nalgebra::{Cholesky, DMatrix, RowDVector};

/// Units of a row's largest weight.
const MOST: f64 = 127.0;
/// Share of the mean variance of an input that is added to each: it keeps a layer whose inputs go together from moving far.
const DAMPING: f64 = 0.01;

/// A layer, `w` with a column an input and a row an output.
#[derive(Clone, Debug)]
pub struct Layer {
    pub w: DMatrix<f64>,
    pub bias: RowDVector<f64>,
}

impl Layer {
    /// Of parameters in the order of a network's: matrix by columns, bias.
    pub fn of(w: &[f32], bias: &[f32]) -> Self {
        let wide = |x: &f32| f64::from(*x);
        let inputs = w.len() / bias.len();
        Self {
            w: DMatrix::from_iterator(bias.len(), inputs, w.iter().map(wide)),
            bias: RowDVector::from_iterator(bias.len(), bias.iter().map(wide)),
        }
    }

    /// Parameters in that order.
    pub fn params(&self) -> impl Iterator<Item = f32> {
        self.w.iter().chain(self.bias.iter()).map(|x| *x as f32)
    }

    /// The sums, a row for each row of `x`.
    pub fn sums(&self, x: &DMatrix<f64>) -> DMatrix<f64> {
        let mut sums = x * self.w.transpose();
        sums.row_iter_mut().for_each(|mut row| row += &self.bias);
        sums
    }

    /// The layer whose weights are integers of their rows' units and whose sums at the rows of `x` are about `wanted`.
    pub fn rounded(&self, x: &DMatrix<f64>, wanted: &DMatrix<f64>) -> Self {
        let (inputs, n) = (x.ncols(), x.nrows() as f64);
        let mean = x.row_mean();
        let mut centred = x.clone();
        centred.row_iter_mut().for_each(|mut row| row -= &mean);
        let mut products = centred.transpose() * &centred / n;
        // Inputs that never move still need a number above zero.
        let damping = (DAMPING * products.trace() / inputs as f64).max(1e-12);
        (0..inputs).for_each(|j| products[(j, j)] += damping);
        let Some(factor) = Cholesky::new(products) else { return self.clone() };
        // Where the rounded layers before have moved the inputs, other weights give the wanted sums.
        let left = wanted - self.sums(x);
        let mut w = &self.w + factor.solve(&(centred.transpose() * left / n)).transpose();
        // Row j of the upper factor of the inverse, by its diagonal: what the inputs after j take back of j's error.
        let Some(inverse) = Cholesky::new(factor.inverse()) else { return self.clone() };
        let upper = inverse.l().transpose();
        for mut row in w.row_iter_mut() {
            let largest = row.iter().enumerate().fold(
                (0, 0.0),
                |most: (usize, f64), (j, w)| {
                    if w.abs() > most.1.abs() { (j, *w) } else { most }
                },
            );
            let unit = largest.1.abs() / MOST;
            for j in 0..inputs {
                let kept = match j {
                    _ if unit == 0.0 => 0.0,
                    j if j == largest.0 => largest.1,
                    j => (row[j] / unit).round().clamp(-MOST, MOST) * unit,
                };
                let error = (row[j] - kept) / upper[(j, j)];
                for later in j + 1..inputs {
                    row[later] -= error * upper[(j, later)];
                }
                row[j] = kept;
            }
        }
        let mut bias = wanted.row_mean() - &mean * w.transpose();
        // f32 is what the layer is stored in.
        bias.iter_mut().for_each(|b| *b = f64::from(*b as f32));
        Self { w, bias }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::Noise;

    fn random(rows: usize, columns: usize, noise: &mut Noise) -> DMatrix<f64> {
        DMatrix::from_fn(rows, columns, |_, _| f64::from(2.0 * noise.uniform() - 1.0))
    }

    /// Each row's weights in its units.
    fn units(w: &DMatrix<f64>) -> DMatrix<f64> {
        let mut w = w.clone();
        w.row_iter_mut().for_each(|mut row| {
            let unit = row.amax() / MOST;
            row /= unit;
        });
        w
    }

    /// Mean squared error of the sums.
    fn error(layer: &Layer, x: &DMatrix<f64>, wanted: &DMatrix<f64>) -> f64 {
        (layer.sums(x) - wanted).norm_squared() / x.nrows() as f64
    }

    #[test]
    fn weights_are_integers_and_sums_stay_closer_than_by_rounding_to_nearest() {
        let mut noise = Noise::new(3, 0);
        // Inputs that go together: 16 from 5.
        let x = random(500, 5, &mut noise) * random(5, 16, &mut noise) + 0.1 * random(500, 16, &mut noise);
        let layer = Layer { w: random(7, 16, &mut noise), bias: random(1, 7, &mut noise).row(0).into_owned() };
        let wanted = layer.sums(&x);
        let found = layer.rounded(&x, &wanted);
        let integers = units(&found.w);
        assert!(integers.iter().all(|w| (w - w.round()).abs() < 1e-6 && w.abs() < MOST + 1e-6), "{integers}");
        assert!((0..7).all(|i| (integers.row(i).amax() - MOST).abs() < 1e-6));
        let mut nearest = layer.clone();
        nearest.w.row_iter_mut().for_each(|mut row| {
            let unit = row.amax() / MOST;
            row.iter_mut().for_each(|w| *w = (*w / unit).round() * unit);
        });
        let (ours, theirs) = (error(&found, &x, &wanted), error(&nearest, &x, &wanted));
        assert!(ours < 0.5 * theirs, "{ours} {theirs}");
    }

    #[test]
    fn the_mean_of_the_sums_is_exact_and_moved_inputs_are_mended() {
        let mut noise = Noise::new(4, 0);
        let x = random(400, 6, &mut noise);
        let layer = Layer { w: random(3, 6, &mut noise), bias: RowDVector::zeros(3) };
        let wanted = layer.sums(&x);
        // The inputs come in half the size, and beside their place.
        let moved = 0.5 * &x + DMatrix::from_element(400, 6, 0.3);
        let found = layer.rounded(&moved, &wanted);
        assert!((found.sums(&moved).row_mean() - wanted.row_mean()).amax() < 1e-6);
        assert!(error(&found, &moved, &wanted) < 1e-3 * error(&layer, &moved, &wanted));
    }

    #[test]
    fn rows_of_zeros_and_inputs_that_never_move_are_harmless() {
        let x = DMatrix::zeros(10, 4);
        let layer = Layer { w: DMatrix::zeros(2, 4), bias: RowDVector::from_element(2, 0.5) };
        let found = layer.rounded(&x, &layer.sums(&x));
        assert_eq!((found.w, found.bias), (layer.w, layer.bias));
    }
}
