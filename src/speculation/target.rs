//! From a row of raw log-probabilities and the sampling parameters to the distribution the server samples from,
//! where that can be known exactly.
//!
//! vLLM applies temperature, then min-p, then top-k, then top-p (`vllm/v1/sample/sampler.py`). A row tells the raw
//! distribution of the N likeliest tokens, so the result is known only if what the row leaves out cannot matter.

use super::{Entry, Row, TokenId};

/// vLLM raises temperatures between 0 and this one to it (`_MAX_TEMP` in `vllm/sampling_params.py`).
const LEAST_TEMPERATURE: f64 = 1e-2;
/// The server sums float32 probabilities over the whole vocabulary. Closer to a threshold than this, which side
/// a token falls on is its rounding's choice, and so unknown here.
const BORDER: f64 = 1e-4;

/// The client's sampling parameters, validated: what shapes the distribution and nothing else.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    temperature: f64,
    top_k: Option<usize>,
    top_p: f64,
    min_p: f64,
}

impl Sampling {
    /// Validated parameters, or `None` where vLLM would refuse them.
    ///
    /// `top_k` of `None` or 0 keeps every token. As in vLLM, truncation is void at temperature 0.
    #[must_use]
    pub fn new(temperature: f64, top_k: Option<usize>, top_p: f64, min_p: f64) -> Option<Self> {
        let valid = temperature.is_finite()
            && temperature >= 0.0
            && top_p > 0.0
            && top_p <= 1.0
            && (0.0..=1.0).contains(&min_p);
        if !valid {
            return None;
        }
        if temperature == 0.0 {
            return Some(Self { temperature: 0.0, top_k: None, top_p: 1.0, min_p: 0.0 });
        }
        let temperature = temperature.max(LEAST_TEMPERATURE);
        Some(Self { temperature, top_k: top_k.filter(|k| *k > 0), top_p, min_p })
    }

    /// The same, where no vocabulary has more than `most` tokens: a top-k as large keeps every token.
    #[must_use]
    pub fn with_vocabulary(self, most: usize) -> Self {
        Self { top_k: self.top_k.filter(|k| *k < most), ..self }
    }

    /// Greedy decoding.
    #[must_use]
    pub fn greedy() -> Self {
        Self { temperature: 0.0, top_k: None, top_p: 1.0, min_p: 0.0 }
    }

    /// The temperature; 0 is greedy.
    #[must_use]
    pub fn temperature(&self) -> f64 {
        self.temperature
    }

    /// The top-k truncation, if any.
    #[must_use]
    pub fn top_k(&self) -> Option<usize> {
        self.top_k
    }

    /// The top-p truncation; 1 is none.
    #[must_use]
    pub fn top_p(&self) -> f64 {
        self.top_p
    }

    /// The min-p truncation; 0 is none.
    #[must_use]
    pub fn min_p(&self) -> f64 {
        self.min_p
    }

    /// Whether the likeliest token is always taken.
    #[must_use]
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }

    /// Whether the raw distribution itself is sampled: temperature 1, nothing truncated.
    #[must_use]
    pub fn is_raw(&self) -> bool {
        self.temperature == 1.0 && self.top_k.is_none() && self.top_p >= 1.0 && self.min_p == 0.0
    }

    /// How many of the likeliest tokens a row should list, given that the server gives at most `limit`; `None`
    /// where no row of that length can ever tell the target.
    #[must_use]
    pub fn row_length(&self, limit: usize) -> Option<usize> {
        if self.is_greedy() {
            // The second one shows a tie for the first.
            return (limit >= 2).then_some(2);
        }
        if let Some(k) = self.top_k
            && k < limit
        {
            // One more than k shows a tie at the border.
            return Some(k + 1);
        }
        let can_tell = self.min_p > 0.0 || self.temperature == 1.0;
        (can_tell && limit >= 1).then_some(limit)
    }
}

/// The target's distribution at a position: a view of its row, so that knowing it takes no memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Known<'a> {
    /// Distinct ids, all that can be sampled unless there is a tail.
    support: &'a [Entry],
    scale: Scale,
    /// What the weights of the support are divided by.
    mass: f64,
    tail: f64,
}

/// From a raw log-probability to a weight.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Scale {
    top: f64,
    temperature: f64,
    log_mass: f64,
}

impl Scale {
    /// Raw probabilities.
    const RAW: Self = Self { top: 0.0, temperature: 1.0, log_mass: 0.0 };

    /// The weights of `support` at `temperature`, which sum to 1.
    fn of(support: &[Entry], temperature: f64) -> Option<Self> {
        let unnormalised = Self { top: support.first()?.logprob, temperature, log_mass: 0.0 };
        Some(Self { log_mass: unnormalised.mass(support).ln(), ..unnormalised })
    }

    fn weight(&self, entry: &Entry) -> f64 {
        ((entry.logprob - self.top) / self.temperature - self.log_mass).exp()
    }

    fn mass(&self, entries: &[Entry]) -> f64 {
        entries.iter().map(|entry| self.weight(entry)).sum()
    }
}

impl<'a> Known<'a> {
    /// The distribution on `support` alone, by these weights.
    fn normalised(support: &'a [Entry], scale: Scale) -> Self {
        Self { support, scale, mass: scale.mass(support), tail: 0.0 }
    }

    /// The ids whose probability is known, with it.
    pub fn listed(&self) -> impl Iterator<Item = (TokenId, f64)> + use<'a> {
        let Self { support, scale, mass, .. } = *self;
        support.iter().map(move |entry| (entry.token, scale.weight(entry) / mass))
    }

    /// The probability of all other ids together. Not zero only for untruncated sampling at temperature 1, where
    /// an id's probability is the exponential of its raw log-probability.
    #[must_use]
    pub fn tail(&self) -> f64 {
        self.tail
    }

    /// p of `token`; `None` if it lies in the tail.
    #[must_use]
    pub fn probability_of(&self, token: TokenId) -> Option<f64> {
        match self.support.iter().find(|entry| entry.token == token) {
            Some(entry) => Some(self.scale.weight(entry) / self.mass),
            None if self.tail == 0.0 => Some(0.0),
            None => None,
        }
    }
}

/// The distribution that the server samples from at the position of `row`, or `None` where the row leaves it open.
#[must_use]
pub fn target<'a>(row: &'a Row, sampling: &Sampling) -> Option<Known<'a>> {
    if sampling.is_greedy() {
        return greedy(row);
    }
    let untruncated = sampling.top_k.is_none() && sampling.min_p == 0.0;
    if untruncated && sampling.temperature == 1.0 {
        return if sampling.top_p >= 1.0 {
            Some(raw(row))
        } else {
            nucleus(row.top(), Scale::RAW, false, sampling.top_p)
        };
    }
    if untruncated {
        // The normaliser at another temperature sums over the whole vocabulary.
        return None;
    }
    let support = support(row.top(), sampling)?;
    let scale = Scale::of(support, sampling.temperature)?;
    if sampling.top_p >= 1.0 {
        return Some(Known::normalised(support, scale));
    }
    nucleus(support, scale, true, sampling.top_p)
}

/// A unique maximum, or the lowest id of those that tie for it, as the server's argmax takes it.
fn greedy(row: &Row) -> Option<Known<'_>> {
    let (first, last) = (row.top().first()?, row.top().last()?);
    let certain = Scale { top: first.logprob, ..Scale::RAW };
    // If all that we see tie, more may tie outside.
    (last.logprob < first.logprob).then(|| Known::normalised(&row.top()[..1], certain))
}

/// Untruncated sampling at temperature 1.
pub(super) fn raw(row: &Row) -> Known<'_> {
    Known { support: row.entries(), scale: Scale::RAW, mass: 1.0, tail: row.tail() }
}

/// The entries of `top`, most likely first, that are likelier than its last. Which of several equals at its end are listed
/// is the server's choice, or that of a draft that is listed with them; these are there in any case.
#[must_use]
pub fn above_border(top: &[Entry]) -> &[Entry] {
    let Some(last) = top.last() else { return top };
    &top[..top.partition_point(|entry| entry.logprob > last.logprob)]
}

/// The tokens that min-p and top-k leave, if the row shows them all.
fn support<'a>(top: &'a [Entry], sampling: &Sampling) -> Option<&'a [Entry]> {
    let mut kept = top;
    let mut complete = false;
    if sampling.min_p > 0.0 {
        let border = kept.first()?.logprob + sampling.temperature * sampling.min_p.ln();
        let margin = sampling.temperature * BORDER;
        if kept.iter().any(|entry| (entry.logprob - border).abs() < margin) {
            return None;
        }
        let count = kept.iter().take_while(|entry| entry.logprob > border).count();
        complete = count < kept.len();
        kept = &kept[..count];
    }
    if let Some(k) = sampling.top_k
        && kept.len() > k
    {
        // Implementations differ in what they do with a tie at the border.
        if kept[k].logprob >= kept[k - 1].logprob {
            return None;
        }
        kept = &kept[..k];
        complete = true;
    }
    complete.then_some(kept)
}

/// The smallest set of likeliest tokens whose mass reaches `top_p`, renormalised. Where `entries` are not the `complete`
/// distribution, the first token that is left out must be among them.
fn nucleus(entries: &[Entry], scale: Scale, complete: bool, top_p: f64) -> Option<Known<'_>> {
    let mut above = 0.0;
    let mut count = 0;
    for entry in entries {
        if (above - top_p).abs() < BORDER {
            return None;
        }
        if above > top_p {
            break;
        }
        above += scale.weight(entry);
        count += 1;
    }
    let cut = count < entries.len();
    if !cut && !complete {
        return None;
    }
    // Which of two equals is kept depends on the server's sort.
    if cut && entries[count].logprob >= entries[count - 1].logprob {
        return None;
    }
    Some(Known::normalised(&entries[..count], scale))
}
