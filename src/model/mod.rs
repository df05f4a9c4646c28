//! The draft model: weights, batched decoding, KV cache with rollback.
