use super::support::stats::{chi_square_survival, g_test};

fn close(value: f64, expected: f64) {
    assert!((value - expected).abs() < 1e-9 * expected.max(1e-3), "{value} is not {expected}");
}

#[test]
fn the_survival_function_agrees_with_closed_forms() {
    // Two degrees of freedom are an exponential; four add one term.
    for x in [0.1_f64, 1.0, 2.5, 7.0, 40.0, 300.0] {
        close(chi_square_survival(x, 2), (-x / 2.0).exp());
        close(chi_square_survival(x, 4), (-x / 2.0).exp() * (1.0 + x / 2.0));
    }
}

#[test]
fn the_survival_function_agrees_with_tables() {
    // Critical values of the 5 %, 1 % and 0.1 % levels (NIST/SEMATECH e-Handbook, 1.3.6.7.4), to their three decimals.
    for (x, dof, p) in [
        (3.841, 1, 0.05),
        (6.635, 1, 0.01),
        (10.828, 1, 0.001),
        (18.307, 10, 0.05),
        (29.588, 10, 0.001),
        (43.773, 30, 0.05),
        (124.342, 100, 0.05),
        (149.449, 100, 0.001),
    ] {
        assert!((chi_square_survival(x, dof) / p - 1.0).abs() < 2e-3, "χ²({x}, {dof})");
    }
    assert!((chi_square_survival(0.0, 3) - 1.0).abs() < f64::EPSILON);
}

#[test]
fn counts_as_expected_are_no_evidence() {
    let fit = g_test(&[250, 500, 250], &[0.25, 0.5, 0.25]);
    assert_eq!((fit.dof, fit.p_value > 0.999), (2, true));
}

#[test]
fn counts_from_another_distribution_are_found_out() {
    assert!(g_test(&[300, 450, 250], &[0.25, 0.5, 0.25]).p_value < 1e-2);
    assert!(g_test(&[400, 350, 250], &[0.25, 0.5, 0.25]).p_value < 1e-12);
}

#[test]
fn cells_that_hardly_occur_are_pooled() {
    // Of 100 observations the last four cells expect 2 each: one cell of 8.
    let fit = g_test(&[52, 40, 3, 1, 2, 2], &[0.5, 0.42, 0.02, 0.02, 0.02, 0.02]);
    assert_eq!(fit.dof, 2);
    assert!(fit.p_value > 0.5);
}

#[test]
fn what_cannot_happen_refutes() {
    assert!(g_test(&[99, 1], &[1.0, 0.0]).p_value.abs() < f64::EPSILON);
}
