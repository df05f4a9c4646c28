//! Stop strings, as `check_stop_strings` in `vllm/v1/engine/detokenizer.py` finds them.

/// The strings at which a rollout ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StopStrings {
    strings: Vec<String>,
    include_in_output: bool,
}

/// A stop string that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopMatch {
    /// Which one.
    pub string: String,
    /// The length in bytes to which the text is to be cut.
    pub cut: usize,
}

impl StopStrings {
    /// Stop strings, which stay in the output or are cut from it. Empty strings stop nothing.
    #[must_use]
    pub fn new(strings: Vec<String>, include_in_output: bool) -> Self {
        let strings = strings.into_iter().filter(|string| !string.is_empty()).collect();
        Self { strings, include_in_output }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.strings.is_empty()
    }

    /// The match that ends earliest in `text`, of which the bytes from `seen` on are new.
    #[must_use]
    pub fn find(&self, text: &str, seen: usize) -> Option<StopMatch> {
        if text.len() <= seen {
            return None;
        }
        let mut earliest: Option<(usize, &String)> = None;
        for string in &self.strings {
            // A match must end in the new part. The old part may hold one that was let pass, before `min_tokens`.
            let from = (seen + 1).saturating_sub(string.len());
            let from = (from..=seen).find(|at| text.is_char_boundary(*at)).unwrap_or(seen);
            let Some(start) = text[from..].find(string.as_str()).map(|at| at + from) else { continue };
            let end = start + string.len();
            if earliest.is_none_or(|(other, _)| end < other) {
                earliest = Some((end, string));
            }
        }
        let (end, string) = earliest?;
        let cut = if self.include_in_output { end } else { end - string.len() };
        Some(StopMatch { string: string.clone(), cut })
    }

    /// How many bytes of `text` may be shown while more may come: the rest could be the start of a stop string.
    #[must_use]
    pub fn safe_length(&self, text: &str) -> usize {
        if self.include_in_output {
            return text.len();
        }
        let held_back = self.strings.iter().map(|string| string.chars().count() - 1).max().unwrap_or(0);
        if held_back == 0 {
            return text.len();
        }
        text.char_indices().rev().nth(held_back - 1).map_or(0, |(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stop(strings: &[&str], include: bool) -> StopStrings {
        StopStrings::new(strings.iter().map(|s| (*s).to_owned()).collect(), include)
    }

    fn found(string: &str, cut: usize) -> Option<StopMatch> {
        Some(StopMatch { string: string.to_owned(), cut })
    }

    #[test]
    fn a_match_across_the_border_of_old_and_new_is_found() {
        assert_eq!(stop(&["END"], false).find("the END", 6), found("END", 4));
        assert_eq!(stop(&["END"], true).find("the END.", 6), found("END", 7));
    }

    #[test]
    fn what_was_searched_before_is_not_searched_again() {
        assert_eq!(stop(&["END"], false).find("END x", 3), None);
    }

    #[test]
    fn a_match_that_was_let_pass_is_not_found_again_inside_its_first_character() {
        assert_eq!(stop(&["é"], false).find("éa", 2), None);
        assert_eq!(stop(&["é"], false).find("éaé", 3), found("é", 3));
    }

    #[test]
    fn the_string_that_ends_first_wins_and_then_the_first_listed() {
        assert_eq!(stop(&["bcd", "bc"], false).find("abcd", 0), found("bc", 1));
        assert_eq!(stop(&["c", "bc"], false).find("abc", 0), found("c", 2));
    }

    #[test]
    fn borders_inside_a_character_do_no_harm() {
        assert_eq!(stop(&["é!"], false).find("né!", 3), found("é!", 1));
    }

    #[test]
    fn as_many_characters_are_held_back_as_could_begin_a_stop_string() {
        assert_eq!(stop(&["END"], false).safe_length("abcd"), 2);
        assert_eq!(stop(&["END"], false).safe_length("é"), 0);
        assert_eq!(stop(&["END"], true).safe_length("abcd"), 4);
        assert_eq!(stop(&["."], false).safe_length("abcd"), 4);
        assert_eq!(stop(&[], false).safe_length("abcd"), 4);
    }
}
