//! Text: the target's tokenizer, incremental detokenisation, stop strings; each as vLLM does it.

mod configured;
mod detokenizer;
#[cfg(test)]
mod fixture;
mod stop;
mod token_text;
mod tokenizer;

pub use detokenizer::Detokenizer;
pub use stop::StopStrings;
pub use token_text::token_text;
pub use tokenizer::{TextError, Tokenizer};
