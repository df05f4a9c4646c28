//! One forward pass over rows of several sequences, which share each read of the weights.

use super::backend::{Feed, Then};
use super::cache::KvStore;
use super::kernels::{ops, rope};
use super::llama::{Layer, Llama};
use super::matrix::{Buffers, Matrix};
use super::parallel::Parallel;

/// Below this many query-key pairs, threads cost more than they save.
const PARALLEL_ATTENTION: usize = 2048;

/// Buffers that passes reuse; n is the number of rows of the pass.
#[derive(Default)]
pub(super) struct Scratch {
    /// (feed, position) of each row.
    places: Vec<(usize, usize)>,
    /// [n, hidden]: the residual stream.
    hidden: Vec<f32>,
    /// [n, hidden].
    normed: Vec<f32>,
    /// [n, query_width + 2 · kv_width].
    qkv: Vec<f32>,
    /// [n, query_width].
    attended: Vec<f32>,
    /// [n, hidden]: what a block adds to the stream.
    update: Vec<f32>,
    /// [n, 2 · intermediate].
    gate_up: Vec<f32>,
    /// [n, intermediate].
    activated: Vec<f32>,
    /// [n, head_dim / 2] each.
    cos: Vec<f32>,
    sin: Vec<f32>,
    /// [rows that want logits, rows of the head].
    logits: Vec<f32>,
    /// For products.
    buffers: Buffers,
}

impl Llama {
    /// Runs every feed's tokens, whose keys and values go to `store`, and returns the logits of the feeds after which
    /// something is to come, in their order: [those, rows of `head`], which is that of the model or some rows of it.
    ///
    /// A row's result does not depend on what else is in the pass, nor on the thread count.
    pub(super) fn forward<'s>(
        &self,
        feeds: &[Feed<'_>],
        store: &mut KvStore,
        head: &Matrix,
        scratch: &'s mut Scratch,
        parallel: Parallel,
    ) -> &'s [f32] {
        self.embed(feeds, scratch);
        for (index, layer) in self.layers.iter().enumerate() {
            self.attend(index, layer, feeds, store, scratch, parallel);
            self.transform(layer, scratch, parallel);
        }
        self.logits(feeds, head, scratch, parallel)
    }

    fn embed(&self, feeds: &[Feed<'_>], scratch: &mut Scratch) {
        let config = &self.config;
        scratch.places.clear();
        let n: usize = feeds.iter().map(|feed| feed.tokens.len()).sum();
        let half = config.head_dim / 2;
        scratch.hidden.resize(n * config.hidden, 0.0);
        scratch.normed.resize(n * config.hidden, 0.0);
        scratch.qkv.resize(n * (config.query_width() + 2 * config.kv_width()), 0.0);
        scratch.attended.resize(n * config.query_width(), 0.0);
        scratch.update.resize(n * config.hidden, 0.0);
        scratch.gate_up.resize(n * 2 * config.intermediate, 0.0);
        scratch.activated.resize(n * config.intermediate, 0.0);
        scratch.cos.resize(n * half, 0.0);
        scratch.sin.resize(n * half, 0.0);
        for (index, feed) in feeds.iter().enumerate() {
            let first = feed.start;
            for (offset, &token) in feed.tokens.iter().enumerate() {
                let row = scratch.places.len();
                let (cos, sin) = (&mut scratch.cos[row * half..][..half], &mut scratch.sin[row * half..][..half]);
                rope::angles(first + offset, &self.inverse_frequencies, cos, sin);
                self.embedding.copy_row(token as usize, &mut scratch.hidden[row * config.hidden..][..config.hidden]);
                scratch.places.push((index, first + offset));
            }
        }
    }

    fn attend(
        &self,
        index: usize,
        layer: &Layer,
        feeds: &[Feed<'_>],
        store: &mut KvStore,
        scratch: &mut Scratch,
        parallel: Parallel,
    ) {
        let config = &self.config;
        let Scratch { places, hidden, normed, qkv, attended, update, cos, sin, buffers, .. } = scratch;
        self.norm_rows(hidden, &layer.attention_norm, normed);
        layer.qkv.multiply(normed, qkv, buffers, parallel);

        let (query, kv, half) = (config.query_width(), config.kv_width(), config.head_dim / 2);
        let width = query + 2 * kv;
        let angles = cos.chunks_exact(half).zip(sin.chunks_exact(half));
        for ((row, (feed, position)), (cos, sin)) in qkv.chunks_exact_mut(width).zip(places.iter()).zip(angles) {
            if let Some(bias) = &layer.qkv_bias {
                ops::add(row, bias);
            }
            let (rotated, values) = row.split_at_mut(query + kv);
            if let Some(norms) = &layer.head_norms {
                let (queries, keys) = rotated.split_at_mut(query);
                ops::rms_norm_heads(queries, &norms.query, config.rms_epsilon);
                ops::rms_norm_heads(keys, &norms.key, config.rms_epsilon);
            }
            rope::rotate(rotated, cos, sin);
            store.write(feeds[*feed].pages, *position, index, &rotated[query..], values);
        }

        let group = config.group() * config.head_dim;
        let store = &*store;
        let attend = |first: usize, outputs: &mut [f32]| {
            for (offset, output) in outputs.chunks_exact_mut(group).enumerate() {
                let (row, kv_head) = ((first + offset) / config.kv_heads, (first + offset) % config.kv_heads);
                let (feed, position) = places[row];
                let queries = &qkv[row * width + kv_head * group..][..group];
                store.attend(queries, feeds[feed].pages, index, kv_head, position + 1, output);
            }
        };
        let pairs: usize = places.iter().map(|(_, position)| position + 1).sum::<usize>() * config.heads;
        if pairs < PARALLEL_ATTENTION {
            attend(0, attended);
        } else {
            parallel.units(attended, group, attend);
        }
        layer.output.multiply(attended, update, buffers, parallel);
        ops::add(hidden, update);
    }

    fn transform(&self, layer: &Layer, scratch: &mut Scratch, parallel: Parallel) {
        let Scratch { hidden, normed, update, gate_up, activated, buffers, .. } = scratch;
        let intermediate = self.config.intermediate;
        self.norm_rows(hidden, &layer.mlp_norm, normed);
        layer.gate_up.multiply(normed, gate_up, buffers, parallel);
        let rows = gate_up.chunks_exact(2 * intermediate).zip(activated.chunks_exact_mut(intermediate));
        for (gate_up, activated) in rows {
            let (gate, up) = gate_up.split_at(intermediate);
            ops::silu_multiply(gate, up, activated);
        }
        layer.down.multiply(activated, update, buffers, parallel);
        ops::add(hidden, update);
    }

    fn logits<'s>(&self, feeds: &[Feed<'_>], head: &Matrix, scratch: &'s mut Scratch, parallel: Parallel) -> &'s [f32] {
        let width = self.config.hidden;
        let Scratch { hidden, normed, logits, buffers, .. } = scratch;
        let (mut row, mut asked) = (0, 0);
        for feed in feeds {
            row += feed.tokens.len();
            if !matches!(feed.then, Then::Nothing) {
                let last = &hidden[(row - 1) * width..][..width];
                ops::rms_norm(last, &self.norm, self.config.rms_epsilon, &mut normed[asked * width..][..width]);
                asked += 1;
            }
        }
        logits.resize(asked * head.rows(), 0.0);
        if asked > 0 {
            head.multiply(&normed[..asked * width], logits, buffers, parallel);
        }
        logits
    }

    fn norm_rows(&self, input: &[f32], weight: &[f32], output: &mut [f32]) {
        let width = self.config.hidden;
        for (input, output) in input.chunks_exact(width).zip(output.chunks_exact_mut(width)) {
            ops::rms_norm(input, weight, self.config.rms_epsilon, output);
        }
    }
}
