//! How many log-probabilities to ask for in a row.
//!
//! A token that falls outside of a row's ids has to be drawn by the server, which takes a request. A longer row makes
//! that rarer, and costs the server time and bytes.

/// Row lengths to choose from.
const LENGTHS: [usize; 6] = [1, 2, 4, 8, 16, 32];
/// The mean probability beyond a row's end that is low enough: one draw from the tail in some hundred tokens.
const RARE: f64 = 0.004;
/// How many rows a mean remembers.
const MEMORY: f64 = 500.0;

/// The mean probability beyond the first entries of rows, by how many entries.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Tails {
    /// (sum or mean, rows).
    beyond: [(f64, f64); LENGTHS.len()],
}

impl Tails {
    /// Takes in a row, given by the probabilities of its likeliest tokens, most likely first.
    pub fn observe(&mut self, probabilities: impl IntoIterator<Item = f64>) {
        let (mut left, mut seen) = (1.0_f64, 0);
        for probability in probabilities {
            left -= probability;
            seen += 1;
            if let Some(place) = LENGTHS.iter().position(|length| *length == seen) {
                self.beyond[place].0 += left.max(0.0);
                self.beyond[place].1 += 1.0;
            }
        }
    }

    /// Takes in what others observed.
    pub fn merge(&mut self, others: &Self) {
        for ((sum, rows), (other_sum, other_rows)) in self.beyond.iter_mut().zip(others.beyond) {
            *sum += other_sum;
            *rows += other_rows;
            if *rows > MEMORY {
                *sum *= MEMORY / *rows;
                *rows = MEMORY;
            }
        }
    }

    /// The shortest row, up to `most`, beyond which little is known to lie.
    #[must_use]
    pub fn shortest_row(&self, most: usize) -> usize {
        /// Rows seen before their mean is believed.
        const ENOUGH: f64 = 30.0;
        let fits =
            |(length, (sum, rows)): &(usize, (f64, f64))| *length <= most && *rows >= ENOUGH && sum / rows <= RARE;
        LENGTHS.into_iter().zip(self.beyond).find(fits).map_or(most, |(length, _)| length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(probabilities: &[f64], rows: usize) -> Tails {
        let mut tails = Tails::default();
        (0..rows).for_each(|_| tails.observe(probabilities.iter().copied()));
        tails
    }

    #[test]
    fn a_sharp_target_needs_short_rows_and_a_flat_one_long_ones() {
        let sharp = [0.99, 0.008, 0.001, 0.0005, 0.0001, 0.0001, 0.0001, 0.0001];
        assert_eq!(seen(&sharp, 100).shortest_row(20), 2);
        assert_eq!(seen(&[0.05; 16], 100).shortest_row(20), 20);
        assert_eq!(seen(&sharp, 3).shortest_row(20), 20, "three rows say little");
        assert_eq!(seen(&[1.0], 100).shortest_row(20), 1);
    }

    #[test]
    fn a_change_of_the_text_is_followed() {
        let mut tails = Tails::default();
        tails.merge(&seen(&[0.999, 0.001], 1000));
        assert_eq!(tails.shortest_row(20), 1);
        (0..40).for_each(|_| tails.merge(&seen(&[0.5, 0.2], 20)));
        assert_eq!(tails.shortest_row(20), 20);
    }
}
