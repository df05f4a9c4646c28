//! What one rollout has come to: committed tokens, their text, and whether it is over.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::speculation::{Scored, TokenId};
use crate::text::{Detokenizer, StopStrings, TextError, Tokenizer};
use crate::upstream::EndToken;

/// When a rollout ends.
#[derive(Debug, Clone)]
pub struct FinishRules {
    /// Most tokens to commit, at least 1.
    pub max_tokens: usize,
    /// The longest context of the model, prompt and output together.
    pub max_model_len: usize,
    /// Stop strings are looked for only in what comes after so many tokens. (Stop tokens do not come before, since the
    /// server does not sample them.)
    pub min_tokens: usize,
    /// Ids at which the client wants to stop.
    pub stop_token_ids: Vec<TokenId>,
    /// The ids at which the model itself stops.
    pub end_tokens: Arc<BTreeMap<TokenId, EndToken>>,
    /// Whether to go on past those.
    pub ignore_eos: bool,
    /// Strings at which the client wants to stop.
    pub stop: StopStrings,
    /// Whether what stopped the rollout stays in the text.
    pub include_stop_str_in_output: bool,
}

/// How tokens become text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextRules {
    /// Whether special tokens leave no text.
    pub skip_special_tokens: bool,
    /// Whether added tokens that follow each other are decoded with the spaces that the decoder puts between them.
    pub spaces_between_special_tokens: bool,
}

/// Why a rollout ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// A token or string at which to stop.
    Stop,
    /// The most tokens allowed.
    Length,
    /// Somebody asked for it to end.
    Abort,
}

/// What a rollout stopped at, as the server would report it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    /// A token id.
    Token(TokenId),
    /// A string.
    Text(String),
}

/// The end of a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finish {
    /// Why.
    pub reason: FinishReason,
    /// At what; nothing for the model's primary end-of-sequence token and for length.
    pub stop: Option<StopReason>,
}

/// A rollout's tokens and text.
#[derive(Debug)]
pub struct Sequence {
    /// Prompt and committed tokens, then those staged.
    tokens: Vec<TokenId>,
    /// Prompt and committed tokens alone.
    length: usize,
    prompt_length: usize,
    rules: FinishRules,
    detokenizer: Detokenizer,
    text: String,
    /// How many bytes of the text have been taken.
    taken: usize,
    finish: Option<Finish>,
}

impl Sequence {
    /// A rollout that starts after `prompt`.
    #[must_use]
    pub fn new(prompt: Vec<TokenId>, rules: FinishRules, tokenizer: Tokenizer, text_rules: TextRules) -> Self {
        let TextRules { skip_special_tokens, spaces_between_special_tokens } = text_rules;
        let detokenizer = Detokenizer::new(tokenizer, &prompt, skip_special_tokens, spaces_between_special_tokens);
        Self {
            length: prompt.len(),
            prompt_length: prompt.len(),
            tokens: prompt,
            rules,
            detokenizer,
            text: String::new(),
            taken: 0,
            finish: None,
        }
    }

    /// Prompt and committed tokens.
    #[must_use]
    pub fn tokens(&self) -> &[TokenId] {
        &self.tokens[..self.length]
    }

    /// Puts tokens after the committed ones without committing them, in place of those staged before.
    pub fn stage(&mut self, drafts: impl IntoIterator<Item = TokenId>) {
        self.tokens.truncate(self.length);
        self.tokens.extend(drafts);
    }

    /// Prompt, committed and staged tokens.
    #[must_use]
    pub fn staged(&self) -> &[TokenId] {
        &self.tokens
    }

    /// The rules it ends by.
    #[must_use]
    pub fn rules(&self) -> &FinishRules {
        &self.rules
    }

    /// How the rollout ended, once it has.
    #[must_use]
    pub fn finish(&self) -> Option<&Finish> {
        self.finish.as_ref()
    }

    /// How many tokens it has committed.
    #[must_use]
    pub fn committed(&self) -> usize {
        self.length - self.prompt_length
    }

    /// How many more tokens must come before one that ends the rollout.
    #[must_use]
    pub fn barred(&self) -> usize {
        self.rules.min_tokens.saturating_sub(self.committed())
    }

    /// Ends it where it stands.
    pub fn abort(&mut self) {
        if self.finish.is_none() {
            self.finish = Some(Finish { reason: FinishReason::Abort, stop: None });
        }
    }

    /// How many more tokens it may commit.
    #[must_use]
    pub fn room(&self) -> usize {
        if self.finish.is_some() {
            return 0;
        }
        let by_model = self.rules.max_model_len.saturating_sub(self.length);
        self.rules.max_tokens.saturating_sub(self.committed()).min(by_model)
    }

    /// Adds a token and checks the rules, in the server's order: end-of-sequence, stop tokens, length, stop strings.
    ///
    /// # Errors
    /// When the tokenizer cannot decode it.
    pub fn commit(&mut self, scored: &Scored) -> Result<Option<&Finish>, TextError> {
        self.commit_token(scored.token);
        let by_token = self.stopped_by(scored.token);
        if by_token.is_none() || self.rules.include_stop_str_in_output {
            let seen = self.text.len();
            self.text.push_str(&self.detokenizer.push(scored.token)?);
            let found = self.rules.stop.find(&self.text, seen);
            if let Some(found) = found.filter(|_| self.committed() > self.rules.min_tokens) {
                self.text.truncate(found.cut);
                self.finish = Some(Finish { reason: FinishReason::Stop, stop: Some(StopReason::Text(found.string)) });
                return Ok(self.finish.as_ref());
            }
        }
        if by_token.is_some() {
            self.finish = by_token;
        } else if self.room() == 0 {
            self.finish = Some(Finish { reason: FinishReason::Length, stop: None });
        }
        Ok(self.finish.as_ref())
    }

    /// What is staged stays where it agrees, so that a round whose drafts are kept copies nothing.
    fn commit_token(&mut self, token: TokenId) {
        if self.tokens.get(self.length) != Some(&token) {
            self.tokens.truncate(self.length);
            self.tokens.push(token);
        }
        self.length += 1;
    }

    fn stopped_by(&self, token: TokenId) -> Option<Finish> {
        let end = self.rules.end_tokens.get(&token).filter(|_| !self.rules.ignore_eos);
        let stop = match end {
            Some(EndToken::Primary) => None,
            Some(EndToken::Additional) => Some(StopReason::Token(token)),
            None if self.rules.stop_token_ids.contains(&token) => Some(StopReason::Token(token)),
            None => return None,
        };
        Some(Finish { reason: FinishReason::Stop, stop })
    }

    /// The text that has become certain since the last call: all of it once the rollout is over, before that all
    /// but what may turn out to be the start of a stop string.
    pub fn take_text(&mut self) -> String {
        let end = if self.finish.is_some() { self.text.len() } else { self.rules.stop.safe_length(&self.text) };
        if end <= self.taken {
            return String::new();
        }
        let text = self.text[self.taken..end].to_owned();
        self.taken = end;
        text
    }
}
