//! The keys and values of one sequence.

use crate::speculation::TokenId;

/// Keys and values of every token that a sequence has run through the model. Each head's lie together, [positions,
/// head_dim], which grows geometrically.
#[derive(Default)]
pub(super) struct KvCache {
    tokens: Vec<TokenId>,
    /// [layers · kv_heads].
    heads: Vec<HeadCache>,
    kv_heads: usize,
    head_dim: usize,
}

/// Keys and values of one head in one layer.
#[derive(Default, Clone)]
pub(super) struct HeadCache {
    pub(super) keys: Vec<f32>,
    pub(super) values: Vec<f32>,
}

impl KvCache {
    pub(super) fn new(layers: usize, kv_heads: usize, head_dim: usize) -> Self {
        let heads = vec![HeadCache::default(); layers * kv_heads];
        Self { tokens: Vec::new(), heads, kv_heads, head_dim }
    }

    /// The tokens whose keys and values are held, in order.
    pub(super) fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    /// Positions held.
    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Notes tokens whose keys and values every layer will append in the same pass.
    pub(super) fn extend_tokens(&mut self, tokens: &[TokenId]) {
        self.tokens.extend_from_slice(tokens);
    }

    /// Appends one token's keys and values of all heads, each [kv_heads · head_dim].
    pub(super) fn append(&mut self, layer: usize, keys: &[f32], values: &[f32]) {
        let heads = &mut self.heads[layer * self.kv_heads..][..self.kv_heads];
        let pairs = keys.chunks_exact(self.head_dim).zip(values.chunks_exact(self.head_dim));
        for (head, (key, value)) in heads.iter_mut().zip(pairs) {
            head.keys.extend_from_slice(key);
            head.values.extend_from_slice(value);
        }
    }

    /// The first `positions` keys and values of a head, each [positions, head_dim].
    pub(super) fn head(&self, layer: usize, kv_head: usize, positions: usize) -> (&[f32], &[f32]) {
        let head = &self.heads[layer * self.kv_heads + kv_head];
        (&head.keys[..positions * self.head_dim], &head.values[..positions * self.head_dim])
    }

    /// Forgets everything from position `length` on, however much that is; memory is kept for what comes next,
    /// unless nothing is left: an empty cache counts as no cache.
    pub(super) fn truncate(&mut self, length: usize) {
        if length == 0 {
            return self.release();
        }
        self.tokens.truncate(length);
        for head in &mut self.heads {
            head.keys.truncate(length * self.head_dim);
            head.values.truncate(length * self.head_dim);
        }
    }

    /// Forgets everything and returns the memory.
    pub(super) fn release(&mut self) {
        self.tokens = Vec::new();
        self.heads.fill(HeadCache::default());
    }
}
