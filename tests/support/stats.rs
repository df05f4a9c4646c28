//! Goodness of fit: whether observed counts can have come from a known distribution.

/// Cells expected to hold fewer observations than this are pooled: the χ² approximation needs them larger.
const SMALLEST_EXPECTATION: f64 = 5.0;

/// The outcome of a G-test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GTest {
    /// The likelihood-ratio statistic 2 Σ O ln(O/E), with Williams' correction; infinite where something impossible
    /// was seen.
    pub g: f64,
    /// Degrees of freedom: the cells after pooling, less one.
    pub dof: usize,
    /// The probability of a statistic at least as large if the expected distribution is the true one.
    pub p_value: f64,
}

/// Tests `observed` counts against `expected_probs`, which sum to 1 and are in the same order.
///
/// Cells expected to be small are pooled into one, and into the smallest of the others where the pool itself is small.
/// A count in a cell of probability zero is a refutation, not a statistic: its p-value is 0.
///
/// # Panics
/// If the slices differ in length or nothing was observed.
#[must_use]
pub fn g_test(observed: &[u64], expected_probs: &[f64]) -> GTest {
    assert_eq!(observed.len(), expected_probs.len(), "one probability for each cell");
    let total = observed.iter().sum::<u64>() as f64;
    assert!(total > 0.0, "a test needs observations");

    if observed.iter().zip(expected_probs).any(|(&count, &p)| count > 0 && p <= 0.0) {
        return GTest { g: f64::INFINITY, dof: 0, p_value: 0.0 };
    }
    let cells = pool(observed.iter().zip(expected_probs).map(|(&count, &p)| (count as f64, p * total)));
    let dof = cells.len().saturating_sub(1);
    if dof == 0 {
        return GTest { g: 0.0, dof, p_value: 1.0 };
    }
    let raw: f64 = cells.iter().filter(|(o, _)| *o > 0.0).map(|(o, e)| 2.0 * o * (o / e).ln()).sum();
    let k = cells.len() as f64;
    let williams = 1.0 + (k * k - 1.0) / (6.0 * total * (k - 1.0));
    let g = (raw / williams).max(0.0);
    GTest { g, dof, p_value: chi_square_survival(g, dof) }
}

/// (observed, expected) cells with every expectation large enough, as far as pooling can make them.
fn pool(cells: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
    let (mut large, small): (Vec<_>, Vec<_>) =
        cells.filter(|(_, expected)| *expected > 0.0).partition(|(_, expected)| *expected >= SMALLEST_EXPECTATION);
    let pooled = small.into_iter().fold((0.0, 0.0), |sum, cell| (sum.0 + cell.0, sum.1 + cell.1));
    if pooled.1 <= 0.0 {
        return large;
    }
    let smallest = large.iter_mut().min_by(|a, b| a.1.total_cmp(&b.1));
    match smallest {
        Some(cell) if pooled.1 < SMALLEST_EXPECTATION => *cell = (cell.0 + pooled.0, cell.1 + pooled.1),
        _ => large.push(pooled),
    }
    large
}

/// P(X ≥ x) for a χ² variable X with `dof` degrees of freedom: Q(dof/2, x/2).
#[must_use]
pub fn chi_square_survival(x: f64, dof: usize) -> f64 {
    upper_regularised_gamma(dof as f64 / 2.0, x / 2.0)
}

/// Q(a, x) = Γ(a, x)/Γ(a), by the series of P below a + 1 and the continued fraction of Q above
/// (Abramowitz & Stegun 6.5.29 and 6.5.31).
fn upper_regularised_gamma(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 1.0;
    }
    let scale = (a * x.ln() - x - ln_gamma(a)).exp();
    if x < a + 1.0 { 1.0 - scale * gamma_series(a, x) } else { scale * gamma_fraction(a, x) }
}

fn gamma_series(a: f64, x: f64) -> f64 {
    let mut term = 1.0 / a;
    let mut sum = term;
    let mut n = a;
    while term > sum * f64::EPSILON {
        n += 1.0;
        term *= x / n;
        sum += term;
    }
    sum
}

/// Lentz's evaluation of 1/(x+1−a− 1(1−a)/(x+3−a− 2(2−a)/(x+5−a− …))).
fn gamma_fraction(a: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let mut b = x + 1.0 - a;
    let mut c = 1.0 / TINY;
    let mut d = 1.0 / b;
    let mut value = d;
    for i in 1..10_000 {
        let i = f64::from(i);
        let numerator = -i * (i - a);
        b += 2.0;
        d = 1.0 / nonzero(numerator * d + b, TINY);
        c = nonzero(b + numerator / c, TINY);
        value *= d * c;
        if (d * c - 1.0).abs() < f64::EPSILON {
            break;
        }
    }
    value
}

fn nonzero(value: f64, tiny: f64) -> f64 {
    if value.abs() < tiny { tiny } else { value }
}

/// ln Γ(x) for x > 0: Stirling's series (A&S 6.1.41) after shifting x to where five terms reach double precision.
fn ln_gamma(x: f64) -> f64 {
    let mut shift = 0.0;
    let mut x = x;
    while x < 12.0 {
        shift += x.ln();
        x += 1.0;
    }
    let inverse = 1.0 / x;
    let square = inverse * inverse;
    let series = inverse
        * (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square * (1.0 / 1680.0 - square / 1188.0))));
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + series - shift
}
