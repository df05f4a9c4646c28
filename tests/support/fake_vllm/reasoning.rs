//! The reasoning parser: what stands before `</think>` is reasoning, what follows is the answer
//! (`vllm/reasoning/deepseek_r1_reasoning_parser.py`). `<think>` may be missing.

use super::ordered::{Json, obj};

const START: &str = "<think>";
const END: &str = "</think>";

/// A piece of a message. A field that is `None` was not set; one of `Some(None)` is said to be null.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Delta {
    pub content: Option<Option<String>>,
    pub reasoning: Option<Option<String>>,
}

impl Delta {
    /// A piece of the answer.
    #[must_use]
    pub fn content(text: &str) -> Self {
        Self { content: Some(Some(text.to_owned())), ..Self::default() }
    }

    fn reasoning(text: &str) -> Self {
        Self { reasoning: Some(Some(text.to_owned())), ..Self::default() }
    }

    /// `delta` of a chunk.
    #[must_use]
    pub fn json(self) -> Json {
        let mut delta = obj! {};
        self.content.into_iter().for_each(|content| delta.set("content", content));
        self.reasoning.into_iter().for_each(|reasoning| delta.set("reasoning", reasoning));
        delta
    }
}

/// Splits one choice as it is generated.
#[derive(Debug, Clone)]
pub struct Splitter {
    start: u32,
    end: u32,
    ended: bool,
    started: bool,
}

impl Splitter {
    /// The splitter of a choice that continues `prompt`. A prompt that ends after its reasoning leaves only the answer.
    #[must_use]
    pub fn new((start, end): (u32, u32), prompt: &[u32]) -> Self {
        let last = prompt.iter().rev().find(|&&id| id == start || id == end);
        Self { start, end, ended: last == Some(&end), started: false }
    }

    /// Whether only the answer is left.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// What `text`, which came with `ids`, adds. `None` where that is nothing: a mark alone says nothing.
    pub fn split(&mut self, text: &str, ids: &[u32], include_reasoning: bool) -> Option<Delta> {
        let mut delta = self.split_all(text, ids)?;
        if include_reasoning {
            return Some(delta);
        }
        delta.reasoning = Some(None);
        delta
            .content
            .as_ref()
            .is_some_and(|content| content.as_ref().is_some_and(|text| !text.is_empty()))
            .then_some(delta)
    }

    fn split_all(&mut self, text: &str, ids: &[u32]) -> Option<Delta> {
        if self.ended {
            return Some(Delta::content(text));
        }
        let starts = ids.contains(&self.start);
        self.ended = ids.contains(&self.end);
        let started = self.started;
        self.started |= starts;
        if let [only] = ids
            && (*only == self.start || *only == self.end)
        {
            return None;
        }
        let Some((before, after)) = text.split_once(END).filter(|_| self.ended) else {
            return Some(Delta::reasoning(text));
        };
        let before = if started { before } else { before.split_once(START).map_or(before, |(_, rest)| rest) };
        let content = Some((!after.is_empty()).then(|| after.to_owned()));
        Some(Delta { content, ..Delta::reasoning(before) })
    }

    /// Reasoning and answer of a whole `text`.
    #[must_use]
    pub fn whole(&self, text: &str) -> (Option<String>, Option<String>) {
        if self.ended {
            return (None, Some(text.to_owned()));
        }
        let text = text.split_once(START).map_or(text, |(_, rest)| rest);
        match text.split_once(END) {
            None => (Some(text.to_owned()), None),
            Some((reasoning, content)) => {
                (Some(reasoning.to_owned()), (!content.is_empty()).then(|| content.to_owned()))
            }
        }
    }

    /// Tokens between the marks of `ids`. Without a `<think>` there are none, whatever the text says.
    #[must_use]
    pub fn count(&self, ids: &[u32]) -> usize {
        let mut depth = 0_usize;
        let mut count = 0;
        for &id in ids {
            if id == self.start {
                depth += 1;
            } else if id == self.end {
                depth = depth.saturating_sub(1);
            } else if depth > 0 {
                count += 1;
            }
        }
        count
    }
}
