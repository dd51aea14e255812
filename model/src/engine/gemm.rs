//! Products of rows with a matrix, as BLAS libraries compute them: each product fused with the addition, in the order of the
//! inputs, from 0; the bias last.
//!
//! Invariant: all paths give the same bits. A fused multiplication and addition is rounded once, whoever computes it; CPUs
//! without one compute it in software, slowly.
#![expect(unsafe_code, reason = "code for CPUs with FMA is called once the CPU has been asked for it")]

use crate::rows::F32_BYTES;

/// Outputs whose sums grow together, in registers. Larger: they no longer fit. Smaller: additions wait for each other.
const BLOCK: usize = 32;

pub(super) struct Gemm {
    inputs: usize,
    /// Block of outputs by block, input by input: shape `[inputs, BLOCK]`, the last block narrower.
    weights: Vec<f32>,
    bias: Vec<f32>,
}

impl Gemm {
    /// Of weights of shape `[outputs, inputs]`.
    pub fn new(weights: &[f32], bias: Vec<f32>) -> Gemm {
        let inputs = weights.len() / bias.len();
        let mut blocks = Vec::with_capacity(weights.len());
        for outputs in weights.chunks(BLOCK * inputs) {
            let of_input = |input| outputs[input..].iter().step_by(inputs);
            (0..inputs).for_each(|input| blocks.extend(of_input(input)));
        }
        Gemm { inputs, weights: blocks, bias }
    }

    pub fn bytes(&self) -> usize {
        (self.weights.len() + self.bias.len()) * F32_BYTES
    }

    /// Multiplies rows (shape `[rows, inputs]`) into `results` (shape `[rows, outputs]`).
    pub fn run(&self, rows: &[f32], results: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the CPU has AVX2 and FMA, which the condition has asked it.
            unsafe { self.run_with_fma(rows, results) };
            return;
        }
        self.multiply(rows, results);
    }

    /// The same, compiled for CPUs with AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    fn run_with_fma(&self, rows: &[f32], results: &mut [f32]) {
        self.multiply(rows, results);
    }

    #[inline(always)]
    fn multiply(&self, rows: &[f32], results: &mut [f32]) {
        let results = results.chunks_exact_mut(self.bias.len());
        for (row, result) in rows.chunks_exact(self.inputs).zip(results) {
            let blocks = self.weights.chunks(BLOCK * self.inputs);
            for ((weights, bias), sums) in blocks.zip(self.bias.chunks(BLOCK)).zip(result.chunks_mut(BLOCK)) {
                match weights.as_chunks::<BLOCK>() {
                    (weights, []) if bias.len() == BLOCK => sums.copy_from_slice(&block(row, weights)),
                    _ => narrow_block(row, weights, sums),
                }
                sums.iter_mut().zip(bias).for_each(|(sum, bias)| *sum += bias);
            }
        }
    }
}

#[inline(always)]
fn block(row: &[f32], weights: &[[f32; BLOCK]]) -> [f32; BLOCK] {
    let mut sums = [0.0_f32; BLOCK];
    for (x, weights) in row.iter().zip(weights) {
        sums.iter_mut().zip(weights).for_each(|(sum, weight)| *sum = x.mul_add(*weight, *sum));
    }
    sums
}

#[inline(always)]
fn narrow_block(row: &[f32], weights: &[f32], sums: &mut [f32]) {
    sums.fill(0.0);
    for (x, weights) in row.iter().zip(weights.chunks_exact(sums.len())) {
        sums.iter_mut().zip(weights).for_each(|(sum, weight)| *sum = x.mul_add(*weight, *sum));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Fused by hand: the product of two f32 is exact in f64. (Rounding twice differs once in 2²⁹ sums.)
    fn fused(x: f32, weight: f32, sum: f32) -> f32 {
        (f64::from(x) * f64::from(weight) + f64::from(sum)) as f32
    }

    #[test]
    fn sums_are_fused_in_order_and_the_bias_comes_last() {
        for outputs in [1, 3, 31, 32, 33, 64, 70] {
            let inputs = 5;
            let weights: Vec<f32> = (0..inputs * outputs).map(|at| 0.1 + at as f32 * 0.37).collect();
            let bias: Vec<f32> = (0..outputs).map(|output| -3.3 * output as f32).collect();
            let row = [1.1, -2.7, 0.3, 1e-3, 77.7];
            let mut results = vec![f32::NAN; outputs];
            Gemm::new(&weights, bias.clone()).run(&row, &mut results);
            for (output, result) in results.iter().enumerate() {
                let own = &weights[output * inputs..(output + 1) * inputs];
                let sum = row.iter().zip(own).fold(0.0, |sum, (x, weight)| fused(*x, *weight, sum));
                assert_eq!(*result, sum + bias[output], "{outputs} {output}");
            }
        }
    }

    proptest! {
        /// The path of this CPU and the portable one give the same bits, for any numbers.
        #[test]
        fn all_paths_give_the_same_bits(
            numbers in proptest::collection::vec(any::<f32>(), 200),
            outputs in 1..40_usize,
            inputs in 1..5_usize,
        ) {
            let row: Vec<f32> = numbers.iter().rev().take(inputs).copied().collect();
            let gemm = Gemm::new(&numbers[..inputs * outputs], numbers[160..160 + outputs].to_vec());
            let (mut fast, mut plain) = (vec![0.0; outputs], vec![0.0; outputs]);
            gemm.run(&row, &mut fast);
            gemm.multiply(&row, &mut plain);
            let same = |one: &f32, other: &f32| one.to_bits() == other.to_bits() || one.is_nan() && other.is_nan();
            prop_assert!(fast.iter().zip(&plain).all(|(one, other)| same(one, other)));
        }
    }
}
