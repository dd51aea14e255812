//! What comes after the sums: links and activations.
//!
//! A margin is rounded to f32, the function is computed in f64 and its result rounded to f32, so that one row gives the same bits
//! wherever it is scored.

/// A function of a row's values. Those that say nothing else are applied to each column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Transform {
    /// `max(x, 0)`; NaN stays NaN.
    Relu,
    /// `slope × x` where `x < 0`.
    LeakyRelu {
        /// Rarely more than 0.2.
        slope: f32,
    },
    /// `scale × (exp(x) − 1)` where `x < 0`.
    Elu {
        /// Mostly 1.
        scale: f32,
    },
    /// `low` where `x < low`, `high` where `x > high`; NaN stays NaN. Where `low > high`, `high` everywhere.
    Clamp {
        /// −∞ for none.
        low: f32,
        /// ∞ for none.
        high: f32,
    },
    /// `1 / (1 + exp(-slope × x))`.
    Sigmoid {
        /// 1 but for LightGBM's `sigmoid:k`.
        slope: f64,
    },
    /// Hyperbolic tangent.
    Tanh,
    /// `exp(x)`.
    Exp,
    /// `ln(1 + exp(x))`, LightGBM's `cross_entropy_lambda`.
    LogOnePlusExp,
    /// `sign(x) × x²`, LightGBM's `regression sqrt`.
    SignedSquare,
    /// 1 if `x > 0`, else 0: XGBoost's `binary:hinge`.
    Step,
    /// The quantile function of the standard normal distribution: ONNX's PROBIT, `√2 × erf⁻¹(2x − 1)`.
    Probit,
    /// Over the row: `exp(x − max) / Σ exp(x − max)`.
    Softmax,
    /// Over the row: softmax of the values that are not 0 (absolute value above 1e-7), which stay 0. ONNX's `SOFTMAX_ZERO`.
    SoftmaxZero,
    /// Over the row: each value divided by the sum of all: LightGBM's `multiclassova` does not do so, scikit-learn's
    /// one-versus-rest does.
    Proportion,
    /// Over the row: the same values, ascending; NaN comes last. XGBoost's `reg:quantileerror` from 3.4 on.
    Sort,
    /// Over the row: the index of the largest value, the first of equals; gives 1 column.
    ArgMax,
}

impl Transform {
    /// Applies the function to a row; returns how many columns the result has, which is in front.
    ///
    /// # Panics
    /// If the row is empty.
    pub fn apply(self, row: &mut [f32]) -> usize {
        match self {
            Transform::Relu => each(row, |x| if x < 0.0 { 0.0 } else { x }),
            Transform::LeakyRelu { slope } => each(row, |x| if x < 0.0 { f64::from(slope) * x } else { x }),
            Transform::Elu { scale } => each(row, |x| if x < 0.0 { f64::from(scale) * x.exp_m1() } else { x }),
            Transform::Clamp { low, high } => row.iter_mut().for_each(|x| *x = clamp(*x, low, high)),
            Transform::Sigmoid { slope } => each(row, |x| sigmoid(slope * x)),
            Transform::Tanh => each(row, f64::tanh),
            Transform::Exp => each(row, f64::exp),
            Transform::LogOnePlusExp => each(row, |x| x.max(0.0) + (-x.abs()).exp().ln_1p()),
            Transform::SignedSquare => each(row, |x| x * x.abs()),
            Transform::Step => each(row, |x| if x > 0.0 { 1.0 } else { 0.0 }),
            Transform::Probit => row.iter_mut().for_each(|x| *x = probit(*x)),
            Transform::Softmax => softmax(row, |_| true),
            Transform::SoftmaxZero => softmax(row, |x| x.abs() > 1e-7),
            Transform::Proportion => {
                let sum: f64 = row.iter().map(|x| f64::from(*x)).sum();
                each(row, |x| x / sum);
            }
            Transform::Sort => row.sort_unstable_by(f32::total_cmp),
            Transform::ArgMax => {
                row[0] = arg_max(row) as f32;
                return 1;
            }
        }
        row.len()
    }

    /// How many columns the result has for `width` columns.
    pub fn columns(self, width: usize) -> usize {
        match self {
            Transform::ArgMax => 1,
            _ => width,
        }
    }
}

fn each(row: &mut [f32], function: impl Fn(f64) -> f64) {
    row.iter_mut().for_each(|x| *x = function(f64::from(*x)) as f32);
}

/// Unlike `f32::clamp`, without a panic: the bounds come out of a file.
fn clamp(x: f32, low: f32, high: f32) -> f32 {
    let raised = if x < low { low } else { x };
    if raised > high { high } else { raised }
}

/// Neither side overflows into NaN: the smaller of the two exponentials is taken.
fn sigmoid(x: f64) -> f64 {
    let small = (-x.abs()).exp();
    if x >= 0.0 { 1.0 / (1.0 + small) } else { small / (1.0 + small) }
}

/// Over those that take part; the others become 0, or if there are no others, NaN, as in onnxruntime.
fn softmax(row: &mut [f32], takes_part: impl Fn(f32) -> bool) {
    let max = row.iter().copied().filter(|x| takes_part(*x)).fold(f32::NEG_INFINITY, f32::max);
    let power = |x: f32| if takes_part(x) { (f64::from(x) - f64::from(max)).exp() } else { 0.0 };
    let sum: f64 = row.iter().map(|x| power(*x)).sum();
    row.iter_mut().for_each(|x| *x = ((if takes_part(*x) { power(*x) } else { 0.0 }) / sum) as f32);
}

fn arg_max(row: &[f32]) -> usize {
    (1..row.len()).fold(0, |best, index| if row[index] > row[best] { index } else { best })
}

/// Winitzki's inverse of the error function, as onnxruntime computes it ("A handy approximation for the error function and its
/// inverse", 2008, a = 0.147), in f32 throughout: what the library answers, not what is most exact.
fn probit(p: f32) -> f32 {
    let x = 2.0 * p - 1.0;
    let log = ((1.0 - x) * (1.0 + x)).ln();
    let first = 2.0 / (std::f32::consts::PI * 0.147) + 0.5 * log;
    let root = ((first * first - 1.0 / 0.147 * log).sqrt() - first).sqrt();
    std::f32::consts::SQRT_2 * if x < 0.0 { -root } else { root }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(transform: Transform, row: &[f32]) -> Vec<f32> {
        let mut row = row.to_vec();
        let columns = transform.apply(&mut row);
        assert_eq!(columns, transform.columns(row.len()));
        row.truncate(columns);
        row
    }

    #[test]
    fn extremes_are_probabilities_too() {
        let sigmoid = Transform::Sigmoid { slope: 1.0 };
        assert_eq!(of(sigmoid, &[0.0, 1e30, -1e30, f32::INFINITY, f32::NEG_INFINITY]), [0.5, 1.0, 0.0, 1.0, 0.0]);
        assert_eq!(of(Transform::Softmax, &[1e30, 1e30]), [0.5, 0.5]);
        assert_eq!(of(Transform::Softmax, &[-1000.0, 0.0]), [0.0, 1.0]);
        assert_eq!(of(Transform::LogOnePlusExp, &[1000.0, -1000.0]), [1000.0, 0.0]);
        assert!(of(sigmoid, &[f32::NAN])[0].is_nan() && of(Transform::Relu, &[f32::NAN])[0].is_nan());
    }

    #[test]
    fn the_values_are_those_of_the_definitions() {
        let slope = Transform::Sigmoid { slope: 2.0 };
        assert!((f64::from(of(slope, &[0.7])[0]) - 1.0 / (1.0 + (-1.4_f64).exp())).abs() < 1e-7);
        assert_eq!(of(Transform::LeakyRelu { slope: 0.5 }, &[-3.0, 2.0]), [-1.5, 2.0]);
        assert_eq!(of(Transform::Elu { scale: 2.0 }, &[f32::NEG_INFINITY, 2.0]), [-2.0, 2.0]);
        assert_eq!(of(Transform::Clamp { low: -1.0, high: 1.0 }, &[-3.0, 0.5, 2.0]), [-1.0, 0.5, 1.0]);
        assert_eq!(of(Transform::Clamp { low: 1.0, high: -1.0 }, &[-3.0, 0.5, 2.0]), [-1.0; 3]);
        assert!(of(Transform::Clamp { low: 0.0, high: 1.0 }, &[f32::NAN])[0].is_nan());
        assert_eq!(of(Transform::SignedSquare, &[-3.0, 2.0]), [-9.0, 4.0]);
        assert_eq!(of(Transform::Step, &[0.0, 1e-30, -1.0]), [0.0, 1.0, 0.0]);
        assert_eq!(of(Transform::SoftmaxZero, &[0.0, 2.0, 2.0]), [0.0, 0.5, 0.5]);
        assert_eq!(of(Transform::Proportion, &[1.0, 3.0]), [0.25, 0.75]);
        assert_eq!(of(Transform::Sort, &[2.0, f32::NAN, -3.0, 0.0])[..3], [-3.0, 0.0, 2.0]);
        assert_eq!(of(Transform::ArgMax, &[1.0, 3.0, 3.0]), [1.0]);
        assert!((of(Transform::Probit, &[0.975])[0] - 1.96).abs() < 0.005);
        assert_eq!(of(Transform::Probit, &[0.5]), [0.0]);
    }
}
