//! vLLM's order of truncation over the whole vocabulary (`vllm/v1/sample/sampler.py`, `ops/topk_topp_sampler.py`):
//! temperature, min-p, top-k with ties, top-p from the least likely up.

/// The client's parameters, `top_k` of 0 for none.
#[derive(Debug, Clone, Copy)]
pub struct Parameters {
    pub temperature: f64,
    pub top_k: usize,
    pub top_p: f64,
    pub min_p: f64,
}

/// What is sampled from where `raw` is the distribution at temperature 1.
pub fn distribution(raw: &[f64], parameters: Parameters) -> Vec<f64> {
    let Parameters { temperature, top_k, top_p, min_p } = parameters;
    if temperature == 0.0 {
        let best = (0..raw.len()).fold(0, |best, id| if raw[id] > raw[best] { id } else { best });
        return (0..raw.len()).map(|id| f64::from(u8::from(id == best))).collect();
    }
    let mut logits: Vec<f64> = raw.iter().map(|p| p.ln() / temperature.max(0.01)).collect();
    let drop = |logits: &mut Vec<f64>, out: &dyn Fn(usize, f64) -> bool| {
        for (id, logit) in logits.iter_mut().enumerate() {
            if out(id, *logit) {
                *logit = f64::NEG_INFINITY;
            }
        }
    };
    if min_p > 0.0 {
        let probabilities = softmax(&logits);
        let threshold = min_p * probabilities.iter().copied().fold(0.0, f64::max);
        drop(&mut logits, &|id, _| probabilities[id] < threshold);
    }
    if (1..raw.len()).contains(&top_k) {
        let mut sorted = logits.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        drop(&mut logits, &|_, logit| logit < sorted[top_k - 1]);
    }
    if top_p < 1.0 {
        let probabilities = softmax(&logits);
        let mut ascending: Vec<usize> = (0..raw.len()).collect();
        ascending.sort_by(|a, b| logits[*a].total_cmp(&logits[*b]));
        let mut sum = 0.0;
        for id in &ascending[..raw.len() - 1] {
            sum += probabilities[*id];
            if sum <= 1.0 - top_p {
                logits[*id] = f64::NEG_INFINITY;
            }
        }
    }
    softmax(&logits)
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let highest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = logits.iter().map(|logit| (logit - highest).exp()).collect();
    super::generate::normalised(&weights)
}
