//! From raw logits to what is sampled, in vLLM's order (`vllm/v1/sample/sampler.py`): allowed ids, bad words,
//! `min_tokens`, `logit_bias`, penalties, temperature, `min_p`, `top_k`, `top_p`.

use super::params::SamplingParams;

/// Below this temperature vLLM is greedy.
const GREEDY_BELOW: f64 = 1e-5;
/// vLLM raises a positive temperature to at least this.
const LOWEST_TEMPERATURE: f64 = 0.01;

/// Logits after processing.
pub struct Processed {
    /// What the token is drawn from: minus infinity where it cannot be. Greedy leaves one id.
    pub sampled: Vec<f64>,
    /// What the `processed_*` logprob modes report: as `sampled`, but greedy requests keep every id.
    pub reported: Vec<f64>,
}

/// Applies every sampling parameter to `logits`. `stop_ids` are those the server holds back until `min_tokens`, besides
/// the request's own.
#[must_use]
pub fn process(
    mut logits: Vec<f64>,
    prompt: &[u32],
    output: &[u32],
    params: &SamplingParams,
    stop_ids: &[u32],
) -> Processed {
    mask(&mut logits, output, params, stop_ids);
    for (&id, bias) in &params.logit_bias {
        logits[id as usize] += bias;
    }
    penalise(&mut logits, prompt, output, params);

    if params.temperature < GREEDY_BELOW {
        let mut only = vec![f64::NEG_INFINITY; logits.len()];
        only[argmax(&logits)] = 0.0;
        return Processed { sampled: only, reported: logits };
    }
    let temperature = params.temperature.max(LOWEST_TEMPERATURE);
    logits.iter_mut().for_each(|logit| *logit /= temperature);
    keep_min_p(&mut logits, params.min_p);
    keep_top_k(&mut logits, params.top_k);
    keep_top_p(&mut logits, params.top_p);
    Processed { sampled: logits.clone(), reported: logits }
}

fn mask(logits: &mut [f64], output: &[u32], params: &SamplingParams, stop_ids: &[u32]) {
    if let Some(allowed) = &params.allowed_token_ids {
        for (id, logit) in (0u32..).zip(logits.iter_mut()) {
            if !allowed.contains(&id) {
                *logit = f64::NEG_INFINITY;
            }
        }
    }
    for word in &params.bad_words_ids {
        // A word's beginning is looked for in the output alone; a word of one token is always out.
        if let Some((&last, beginning)) = word.split_last()
            && output.ends_with(beginning)
        {
            logits[last as usize] = f64::NEG_INFINITY;
        }
    }
    if output.len() < params.min_tokens {
        for &id in stop_ids.iter().chain(&params.stop_token_ids) {
            logits[id as usize] = f64::NEG_INFINITY;
        }
    }
}

fn penalise(logits: &mut [f64], prompt: &[u32], output: &[u32], params: &SamplingParams) {
    let SamplingParams { repetition_penalty, frequency_penalty, presence_penalty, .. } = *params;
    if (repetition_penalty, frequency_penalty, presence_penalty) == (1.0, 0.0, 0.0) {
        return;
    }
    for (id, logit) in (0u32..).zip(logits.iter_mut()) {
        let times = output.iter().filter(|&&token| token == id).count();
        if times > 0 || prompt.contains(&id) {
            *logit = if *logit > 0.0 { *logit / repetition_penalty } else { *logit * repetition_penalty };
        }
        if times > 0 {
            *logit -= frequency_penalty * times as f64 + presence_penalty;
        }
    }
}

fn keep_min_p(logits: &mut [f64], min_p: f64) {
    if min_p > 0.0 {
        let highest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let threshold = highest + min_p.ln();
        drop_where(logits, |logit| logit < threshold);
    }
}

/// Keeps the k highest and whatever ties with the k-th.
fn keep_top_k(logits: &mut [f64], top_k: i64) {
    if let Ok(k @ 1..) = usize::try_from(top_k)
        && k < logits.len()
    {
        let mut sorted = logits.to_vec();
        sorted.sort_unstable_by(|a, b| b.total_cmp(a));
        drop_where(logits, |logit| logit < sorted[k - 1]);
    }
}

/// Drops, from the least likely up, what together holds at most 1 − p. Among equals the lower id goes first.
fn keep_top_p(logits: &mut [f64], top_p: f64) {
    if top_p >= 1.0 {
        return;
    }
    let probabilities = softmax(logits);
    let mut ascending: Vec<usize> = (0..logits.len()).collect();
    ascending.sort_by(|&a, &b| logits[a].total_cmp(&logits[b]));
    let mut cumulative = 0.0;
    for &id in &ascending[..ascending.len() - 1] {
        cumulative += probabilities[id];
        if cumulative <= 1.0 - top_p {
            logits[id] = f64::NEG_INFINITY;
        }
    }
}

fn drop_where(logits: &mut [f64], out: impl Fn(f64) -> bool) {
    logits.iter_mut().filter(|logit| out(**logit)).for_each(|logit| *logit = f64::NEG_INFINITY);
}

/// The highest logit's id; the lowest of equals, as `torch.argmax`.
#[must_use]
pub fn argmax(logits: &[f64]) -> usize {
    (0..logits.len()).fold(0, |best, id| if logits[id] > logits[best] { id } else { best })
}

/// Probabilities of `logits`.
#[must_use]
pub fn softmax(logits: &[f64]) -> Vec<f64> {
    log_softmax(logits).into_iter().map(f64::exp).collect()
}

/// Natural logarithms of the probabilities of `logits`.
#[must_use]
pub fn log_softmax(logits: &[f64]) -> Vec<f64> {
    let highest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = logits.iter().map(|logit| (logit - highest).exp()).sum();
    logits.iter().map(|logit| logit - highest - total.ln()).collect()
}
