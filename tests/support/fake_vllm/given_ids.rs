//! Ids that a request has scored at positions of its prompt (`prompt_logprob_token_ids`; in vLLM
//! `v1/worker/gpu/sample/prompt_logprob.py` and `SamplingParams.verify`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::config::{FakeConfig, Runner, Version};
use super::error::ApiError;
use super::language::LanguageModel;
use super::logprobs::prompt_scores;
use super::validate;

const IDS: &str = "prompt_logprob_token_ids";
const START: &str = "prompt_logprob_start";

/// What a request says of them: a list of ids for each position, −1 for none, and the row of the first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GivenIds {
    pub rows: Option<Vec<Vec<i64>>>,
    pub start: Option<i64>,
}

impl GivenIds {
    /// The same as a server of this kind reads it: releases before 0.31, and the Rust frontend, know of no such parameter.
    #[must_use]
    pub fn read_by(self, config: &FakeConfig) -> Self {
        let knows = config.version >= Version::GIVEN_IDS && !config.is_rust_frontend();
        if knows { self } else { Self::default() }
    }

    /// Refuses them in a request for a stream, before the engine has it.
    ///
    /// # Errors
    /// A 400.
    pub fn verify_stream(&self) -> Result<(), ApiError> {
        let message = format!("{IDS} are not available when stream=true.");
        if self.rows.is_some() { Err(ApiError::bad_request(message)) } else { Ok(()) }
    }

    /// Refuses what the engine does, where a prompt has `length` tokens.
    ///
    /// # Errors
    /// A 400.
    pub fn verify(&self, config: &FakeConfig, length: usize) -> Result<(), ApiError> {
        let Some(rows) = &self.rows else {
            return match self.start {
                Some(start) => Err(ApiError::invalid(&format!("{START} requires {IDS}."), START, start)),
                None => Ok(()),
            };
        };
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        if columns == 0 {
            let message = format!("{IDS} must be a non-empty integer array of shape [num_rows, num_ids].");
            return Err(ApiError::invalid(&message, IDS, "list"));
        }
        let vocab = config.language.vocab as i64;
        let most = if config.max_logprobs == -1 { vocab } else { config.max_logprobs };
        if columns as i64 > most {
            let message = format!(
                "Requested {columns} token ids per row in {IDS}, which is greater than max allowed: {most}. Set \
                 max_logprobs (--max-logprobs) to at least {columns}."
            );
            return Err(ApiError::invalid(&message, IDS, columns));
        }
        let all = || rows.iter().flatten().copied();
        if all().any(|id| !(-1..vocab).contains(&id)) {
            let message = format!("{IDS} contain out-of-vocab token ids (-1 pads a row). Vocabulary size: {vocab}");
            let extremes = format!("[{}, {}]", all().min().unwrap_or(0), all().max().unwrap_or(0));
            return Err(ApiError::invalid(&message, IDS, extremes));
        }
        if let Some(start) = self.start.filter(|start| *start < 0) {
            return Err(ApiError::invalid(&format!("{START} must be non-negative."), START, start));
        }
        if config.runner == Runner::V1 {
            return validate::blame(IDS, &format!("{IDS} requires the V2 model runner (VLLM_USE_V2_MODEL_RUNNER=1)."));
        }
        let scored = length.saturating_sub(1 + self.first());
        if rows.len() != scored {
            let message = format!(
                "{IDS} has {} rows, but the prompt has {scored} scored rows (prompt_len - 1 - {START}).",
                rows.len()
            );
            return Err(ApiError::invalid(&message, IDS, rows.len()));
        }
        Ok(())
    }

    /// The scores as the reply has them, an array of NumPy's; none where the first `cached` tokens of `prompt` were not
    /// computed and a row needs one of them.
    #[must_use]
    pub fn scores(
        &self,
        config: &FakeConfig,
        language: &LanguageModel,
        prompt: &[u32],
        cached: usize,
    ) -> Option<String> {
        let rows = self.rows.as_ref().filter(|_| cached <= self.first())?;
        let columns = rows.iter().map(Vec::len).max()?;
        let mut values = Vec::new();
        for (at, row) in rows.iter().enumerate() {
            let scores = prompt_scores(config.logprobs_mode, &language.logits(&prompt[..=self.first() + at]));
            let of = |id: Option<&i64>| {
                let id = id.and_then(|id| usize::try_from(*id).ok());
                id.map_or(f32::NEG_INFINITY, |id| scores[id] as f32)
            };
            values.extend((0..columns).map(|column| of(row.get(column))));
        }
        Some(STANDARD.encode(npy(rows.len(), columns, &values)))
    }

    fn first(&self) -> usize {
        usize::try_from(self.start.unwrap_or(0)).unwrap()
    }
}

/// What `numpy.save` writes: a header that ends at a multiple of 64 bytes, and the values.
fn npy(rows: usize, columns: usize, values: &[f32]) -> Vec<u8> {
    let shape = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    let before = b"\x93NUMPY\x01\x00".len() + 2;
    let length = (before + shape.len() + 1).next_multiple_of(64) - before;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(u16::try_from(length).unwrap().to_le_bytes());
    bytes.extend(format!("{shape:<width$}\n", width = length - 1).bytes());
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}
