//! What `sidedraft bench draft` prints.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::model::{Agreement, Cell, Measured, Misfit};

/// What became of a cell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Finding {
    Measured(Measured),
    Misfit(Misfit),
    /// The time for the table was over.
    OutOfTime,
}

/// A line for each cell.
pub(super) fn table(cells: &[(Cell, Finding)]) -> String {
    let mut text = "| batch | context | k | µs a step | µs a token | of copy bandwidth | rounds |\n\
                    |---:|---:|---:|---:|---:|---:|---:|\n"
        .to_owned();
    for (Cell { batch, context, length }, finding) in cells {
        let rest = match finding {
            Finding::Measured(Measured { micros_per_step, share_of_copy, rounds, .. }) => {
                let each = micros_per_step / *batch as f64;
                format!("{micros_per_step:.0} | {each:.1} | {:.0}% | {rounds}", 100.0 * share_of_copy)
            }
            Finding::Misfit(Misfit::Positions { limit }) => format!("the model has {limit} positions | | |"),
            Finding::Misfit(Misfit::Memory { limit }) => format!("memory for {limit} positions | | |"),
            Finding::OutOfTime => "not measured: time was up | | |".to_owned(),
        };
        // Writing into a string does not fail.
        let _ = writeln!(text, "| {batch} | {context} | {length} | {rest} |");
    }
    text
}

/// How far the model agrees with the reference, in a line.
pub(super) fn agreement(agreement: &Agreement) -> String {
    let Agreement { positions, median_error, largest_error, same_token } = agreement;
    format!(
        "Against float32 on the CPU, {positions} positions: relative error of the logits {median_error:.1e} at the median \
         and {largest_error:.1e} at most, the likeliest token the same at {same_token} ({:.1}%).\n",
        100.0 * share(agreement)
    )
}

/// What keeps the agreement from being good enough, if anything does.
pub(super) fn fault(agreement: &Agreement, most_error: Option<f64>, least: Option<f64>) -> Option<String> {
    if let Some(most) = most_error.filter(|most| agreement.largest_error > *most) {
        return Some(format!("logits are off by {:.1e}, more than {most:.1e}", agreement.largest_error));
    }
    let least = least.filter(|least| share(agreement) < *least)?;
    Some(format!("the likeliest token is the same at {:.4} of the positions, less than {least}", share(agreement)))
}

fn share(agreement: &Agreement) -> f64 {
    agreement.same_token as f64 / agreement.positions.max(1) as f64
}

/// A cell as JSON.
pub(super) fn cell_json((cell, finding): &(Cell, Finding)) -> Value {
    let mut value = json!({ "batch": cell.batch, "context": cell.context, "k": cell.length });
    let finding = match finding {
        Finding::Measured(measured) => json!({
            "micros_per_step": measured.micros_per_step,
            "bytes_per_step": measured.bytes_per_step,
            "share_of_copy": measured.share_of_copy,
            "rounds": measured.rounds,
        }),
        Finding::Misfit(Misfit::Positions { limit }) => json!({ "model_positions": limit }),
        Finding::Misfit(Misfit::Memory { limit }) => json!({ "cache_positions": limit }),
        Finding::OutOfTime => json!({ "out_of_time": true }),
    };
    if let (Some(value), Value::Object(finding)) = (value.as_object_mut(), finding) {
        value.extend(finding);
    }
    value
}

/// The agreement as JSON.
pub(super) fn agreement_json(agreement: &Agreement) -> Value {
    json!({
        "positions": agreement.positions,
        "median_error": agreement.median_error,
        "largest_error": agreement.largest_error,
        "same_token": agreement.same_token,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells() -> Vec<(Cell, Finding)> {
        let measured = Measured { micros_per_step: 1234.5, bytes_per_step: 1e9, share_of_copy: 0.756, rounds: 20 };
        let cell = |batch, context| Cell { batch, context, length: 4 };
        vec![
            (cell(4, 512), Finding::Measured(measured)),
            (cell(4, 16_384), Finding::Misfit(Misfit::Positions { limit: 8192 })),
            (cell(64, 4096), Finding::Misfit(Misfit::Memory { limit: 90_000 })),
            (cell(64, 512), Finding::OutOfTime),
        ]
    }

    #[test]
    fn every_cell_has_a_line_and_one_without_a_figure_says_why() {
        expect_test::expect![[r"
            | batch | context | k | µs a step | µs a token | of copy bandwidth | rounds |
            |---:|---:|---:|---:|---:|---:|---:|
            | 4 | 512 | 4 | 1234 | 308.6 | 76% | 20 |
            | 4 | 16384 | 4 | the model has 8192 positions | | | |
            | 64 | 4096 | 4 | memory for 90000 positions | | | |
            | 64 | 512 | 4 | not measured: time was up | | | |
        "]]
        .assert_eq(&table(&cells()));
    }

    #[test]
    fn the_file_says_the_same() {
        let json: Vec<Value> = cells().iter().map(cell_json).collect();
        assert_eq!(json[0]["micros_per_step"], 1234.5);
        assert_eq!(json[1], json!({ "batch": 4, "context": 16_384, "k": 4, "model_positions": 8192 }));
        assert_eq!(json[2]["cache_positions"], 90_000);
        assert_eq!(json[3]["out_of_time"], true);
    }

    #[test]
    fn an_agreement_is_as_good_as_was_asked_for_or_a_fault() {
        let found = Agreement { positions: 200, median_error: 1e-3, largest_error: 8e-3, same_token: 199 };
        expect_test::expect![[r"
            Against float32 on the CPU, 200 positions: relative error of the logits 1.0e-3 at the median and 8.0e-3 at most, the likeliest token the same at 199 (99.5%).
        "]]
        .assert_eq(&agreement(&found));
        assert_eq!(fault(&found, None, None), None);
        assert_eq!(fault(&found, Some(1e-2), Some(0.99)), None);
        assert!(fault(&found, Some(5e-3), Some(0.99)).unwrap().contains("8.0e-3"));
        assert!(fault(&found, Some(1e-2), Some(0.999)).unwrap().contains("0.9950"));
    }
}
