//! Keys: carried to where they are needed, shown to nobody.

use std::fmt;
use std::str::FromStr;

use subtle::ConstantTimeEq;

/// A key. Its debug output does not tell it.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// The key itself, to be put into a header.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether somebody's `guess` is the key. How long it takes tells at most how long the key is, not how much of the
    /// guess was right.
    #[must_use]
    pub fn is(&self, guess: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(guess).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(not shown)")
    }
}

impl FromStr for Secret {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Whoever sends no key at all would know it.
        if text.is_empty() { Err("a key cannot be empty") } else { Ok(Self(text.to_owned())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_key_is_the_key() {
        let key: Secret = "abc".parse().unwrap();
        for (guess, right) in [("abc", true), ("abd", false), ("ab", false), ("abcd", false), ("", false)] {
            assert_eq!(key.is(guess.as_bytes()), right, "{guess}");
        }
        assert!("".parse::<Secret>().is_err());
    }

    #[test]
    fn debug_output_does_not_tell_it() {
        let key: Secret = "abc".parse().unwrap();
        assert!(!format!("{key:?} {:#?}", Some(&key)).contains("abc"));
    }
}
