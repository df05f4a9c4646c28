//! Whether a rollout came to the right answer.

/// 1 where the last number of `text` is `answer`, 0 where it is another or there is none.
pub(super) fn reward(text: &str, answer: f64) -> f64 {
    f64::from(last_number(text).is_some_and(|number| (number - answer).abs() < 1e-9 * answer.abs().max(1.0)))
}

/// The last number of a text: digits, with commas between them and a decimal part, and a minus sign right before them.
fn last_number(text: &str) -> Option<f64> {
    let is_part = |c: char| c.is_ascii_digit() || matches!(c, ',' | '.');
    text.rsplit(|c: char| !(is_part(c) || c == '-')).find_map(|word| {
        let word = word.trim_end_matches(|c: char| !c.is_ascii_digit());
        let digits = word.rfind('-').map_or(0, |minus| minus + 1);
        // In 7-3 the sign stands between two numbers.
        let signed = digits > 0 && !word[..digits - 1].ends_with(|c: char| c.is_ascii_digit());
        let number: f64 = word[digits..].replace(',', "").parse().ok()?;
        Some(if signed { -number } else { number })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_counts() {
        for (text, number) in [
            ("2 + 3 = 5, so the answer is 5.", Some(5.0)),
            ("The answer is 1,234", Some(1234.0)),
            ("It costs $3.50.", Some(3.5)),
            ("The result is -7!", Some(-7.0)),
            ("That leaves 7-3", Some(3.0)),
            ("#### 82\n", Some(82.0)),
            ("No number here. - ,", None),
            ("", None),
        ] {
            assert_eq!(last_number(text), number, "{text}");
        }
    }

    #[test]
    fn only_the_right_answer_is_rewarded() {
        assert_eq!((reward("so 82", 82.0), reward("so 83", 82.0), reward("none", 82.0)), (1.0, 0.0, 0.0));
    }
}
