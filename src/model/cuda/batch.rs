//! What is uploaded for a pass: rows, sequences, their pages and how to draw, packed so that one copy is enough; and
//! drafts as they come back.

use super::device::{Address, Rows};
use crate::model::backend::{PAGE, PageId};
use crate::model::sample::{DraftSampling, DraftedToken};
use crate::speculation::TokenId;

/// Ids that a draft is drawn from at most.
pub(super) const TOP: usize = 32;
/// Bytes of `Drawn` in `kernels/sample.cu`.
pub(super) const DRAWN: usize = TOP * (size_of::<f64>() + size_of::<u32>()) + 16;
/// Bytes of `Sampling`.
const SAMPLING: usize = 16;
/// Draft steps of a graph at most.
pub(super) const MOST_STEPS: usize = 8;

/// Counts that a graph is recorded for; a pass fills up to them with rows that go nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Bucket {
    /// Rows of the first step: the tokens of all sequences.
    pub(super) rows: usize,
    /// Sequences that draft.
    pub(super) batch: usize,
    pub(super) steps: usize,
    /// Whether sequences have more than one row in the first step.
    pub(super) several: bool,
}

impl Bucket {
    /// The smallest that holds so many: powers of two, but for steps.
    pub(super) fn of(rows: usize, batch: usize, steps: usize) -> Self {
        let (several, batch) = (rows > batch, batch.next_power_of_two());
        Self { rows: rows.next_power_of_two().max(batch), batch, steps, several }
    }
}

/// Where the parts of an upload are, in bytes. Each is as large as the bucket wants; tables come last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) samplings: usize,
    pub(super) uniforms: usize,
    pub(super) tokens: usize,
    pub(super) positions: usize,
    pub(super) sequences: usize,
    /// The last row of each sequence in the first step.
    pub(super) last: usize,
    /// The position of each sequence's first draft.
    pub(super) next: usize,
    pub(super) held: usize,
    pub(super) table_starts: usize,
    pub(super) run_first: usize,
    pub(super) run_count: usize,
    pub(super) tables: usize,
}

impl Layout {
    /// For so many rows, sequences (one more is kept for rows that go nowhere) and steps.
    pub(super) fn new(rows: usize, batch: usize, steps: usize) -> Self {
        let mut end = 0;
        let mut part = |count: usize, size: usize| {
            let start = end;
            end += count * size;
            start
        };
        Self {
            samplings: part(batch, SAMPLING),
            uniforms: part(batch * steps, 8),
            tokens: part(rows, 4),
            positions: part(rows, 4),
            sequences: part(rows, 4),
            last: part(batch, 4),
            next: part(batch, 4),
            held: part(batch + 1, 4),
            table_starts: part(batch + 1, 4),
            run_first: part(rows, 4),
            run_count: part(rows, 4),
            tables: part(0, 4),
        }
    }

    /// Rows that each have a sequence and position of their own.
    pub(super) fn first_rows(&self, inputs: Address) -> Rows {
        let at = |offset| inputs.plus(offset);
        Rows {
            tables: at(self.tables),
            table_starts: at(self.table_starts),
            held: at(self.held),
            sequences: at(self.sequences),
            positions: at(self.positions),
            step: 0,
        }
    }

    /// One row for each sequence, `step` positions after its tokens.
    pub(super) fn draft_rows(&self, inputs: Address, step: usize) -> Rows {
        let step = step as i32;
        Rows { sequences: Address::NULL, positions: inputs.plus(self.next), step, ..self.first_rows(inputs) }
    }
}

/// What a sequence brings to a pass.
pub(super) struct Part<'a> {
    pub(super) pages: &'a [PageId],
    pub(super) start: usize,
    pub(super) tokens: &'a [TokenId],
    /// How to draw after them; absent where nothing is drawn.
    pub(super) sampling: Option<&'a DraftSampling>,
    /// One for each step, in [0, 1).
    pub(super) uniforms: &'a [f64],
}

/// Rows of one sequence that attention takes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: usize,
    pub(super) count: usize,
}

/// Cuts the parts' rows into runs of at most `most`.
pub(super) fn runs(parts: &[Part<'_>], most: usize) -> Vec<Run> {
    let mut runs = Vec::new();
    let mut row = 0;
    for part in parts {
        let end = row + part.tokens.len();
        runs.extend((row..end).step_by(most.max(1)).map(|first| Run { first, count: most.max(1).min(end - first) }));
        row = end;
    }
    runs
}

/// Packs a pass. Rows and sequences beyond those of `parts` go to the page `spare`, as do positions beyond a part's
/// pages.
pub(super) fn pack(parts: &[Part<'_>], bucket: Bucket, runs: &[Run], spare: PageId, bytes: &mut Vec<u8>) -> Layout {
    let Bucket { rows, batch, steps, .. } = bucket;
    let layout = Layout::new(rows, batch, steps);
    bytes.clear();
    bytes.resize(layout.tables, 0);
    let mut put = |offset: usize, index: usize, value: usize| {
        bytes[offset + 4 * index..][..4].copy_from_slice(&(value as u32).to_le_bytes());
    };
    let mut tables: Vec<PageId> = Vec::new();
    let mut row = 0;
    for (sequence, part) in parts.iter().enumerate() {
        for (offset, token) in part.tokens.iter().enumerate() {
            put(layout.tokens, row, *token as usize);
            put(layout.positions, row, part.start + offset);
            put(layout.sequences, row, sequence);
            row += 1;
        }
        put(layout.last, sequence, row - 1);
        put(layout.next, sequence, part.start + part.tokens.len());
        put(layout.held, sequence, part.start);
        put(layout.table_starts, sequence, tables.len());
        let wanted = (part.start + part.tokens.len() + steps).div_ceil(PAGE);
        let pages = part.pages.iter().copied().chain(std::iter::repeat(spare)).take(wanted);
        tables.extend(pages);
    }
    for sequence in parts.len()..=batch {
        put(layout.table_starts, sequence, tables.len());
        if sequence < batch {
            put(layout.last, sequence, rows - 1);
        }
    }
    tables.push(spare);
    (row..rows).for_each(|row| put(layout.sequences, row, batch));
    for (index, run) in runs.iter().enumerate() {
        put(layout.run_first, index, run.first);
        put(layout.run_count, index, run.count);
    }
    for sequence in 0..batch {
        let part = parts.get(sequence);
        pack_sampling(part.and_then(|part| part.sampling), &mut bytes[layout.samplings + SAMPLING * sequence..]);
        for step in 0..steps {
            let uniform = part.and_then(|part| part.uniforms.get(step)).copied().unwrap_or(0.0);
            bytes[layout.uniforms + 8 * (step * batch + sequence)..][..8].copy_from_slice(&uniform.to_le_bytes());
        }
    }
    bytes.extend(tables.iter().flat_map(|page| page.to_le_bytes()));
    layout
}

/// `Sampling`: greedy where there is none.
fn pack_sampling(sampling: Option<&DraftSampling>, bytes: &mut [u8]) {
    let (temperature, top_m, usable) = sampling
        .map_or((0.0, 1, usize::MAX), |sampling| (sampling.temperature, sampling.top_m, sampling.usable_vocabulary));
    bytes[..8].copy_from_slice(&temperature.to_le_bytes());
    bytes[8..12].copy_from_slice(&(top_m.clamp(1, TOP) as i32).to_le_bytes());
    bytes[12..16].copy_from_slice(&i32::try_from(usable).unwrap_or(i32::MAX).to_le_bytes());
}

/// Reads a `Drawn`; none if there was no finite logit to draw from.
pub(super) fn unpack(bytes: &[u8; DRAWN], sampling: &DraftSampling) -> Option<DraftedToken> {
    let word = |offset: usize| {
        let mut word = [0; 4];
        word.copy_from_slice(&bytes[offset..][..4]);
        u32::from_le_bytes(word)
    };
    let double = |offset: usize| f64::from_bits(u64::from(word(offset)) | u64::from(word(offset + 4)) << 32);
    let rest = 12 * TOP;
    let [token, count, confidence, fault] = [0, 4, 8, 12].map(|offset| word(rest + offset));
    if fault != 0 {
        return None;
    }
    let listed = (0..(count as usize).min(TOP)).map(|index| (word(8 * TOP + 4 * index), double(8 * index)));
    let distribution = (sampling.temperature > 0.0).then(|| listed.collect());
    Some(DraftedToken { token, distribution, confidence: f32::from_bits(confidence) })
}

/// The largest upload for so many rows, of so many sequences of so many positions.
pub(super) fn most_bytes(rows: usize, batch: usize, positions: usize) -> usize {
    let pages = (positions + MOST_STEPS).div_ceil(PAGE) + 1;
    Layout::new(rows, batch, MOST_STEPS).tables + 4 * (batch * pages + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part<'a>(pages: &'a [PageId], start: usize, tokens: &'a [TokenId]) -> Part<'a> {
        Part { pages, start, tokens, sampling: None, uniforms: &[] }
    }

    fn words(bytes: &[u8], offset: usize, count: usize) -> Vec<u32> {
        bytes[offset..][..4 * count].chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
    }

    #[test]
    fn buckets_are_powers_of_two_that_hold_what_comes() {
        for batch in 1..=64 {
            for rows in batch..=64 {
                let bucket = Bucket::of(rows, batch, 3);
                assert!(bucket.rows >= rows && bucket.batch >= batch && bucket.rows >= bucket.batch);
                assert!(bucket.rows <= 64 && bucket.rows.is_power_of_two() && bucket.batch.is_power_of_two());
                assert_eq!(bucket.several, rows > batch);
            }
        }
    }

    #[test]
    fn rows_know_their_position_and_the_pages_of_their_sequence() {
        let parts = [part(&[7, 3], 15, &[40, 41]), part(&[9], 0, &[50])];
        let mut bytes = Vec::new();
        let layout = pack(&parts, Bucket::of(3, 2, 1), &[], 99, &mut bytes);
        assert_eq!(words(&bytes, layout.tokens, 4), [40, 41, 50, 0]);
        assert_eq!(words(&bytes, layout.positions, 4), [15, 16, 0, 0]);
        assert_eq!(words(&bytes, layout.sequences, 4), [0, 0, 1, 2]);
        assert_eq!(words(&bytes, layout.last, 2), [1, 2]);
        assert_eq!(words(&bytes, layout.next, 2), [17, 1]);
        assert_eq!(words(&bytes, layout.held, 2), [15, 0]);
        assert_eq!(words(&bytes, layout.table_starts, 3), [0, 2, 3]);
        assert_eq!(words(&bytes, layout.tables, 4), [7, 3, 9, 99]);
        assert_eq!(bytes.len(), layout.tables + 16);
    }

    #[test]
    fn drafts_beyond_a_sequences_pages_go_to_the_spare_page() {
        let mut bytes = Vec::new();
        let layout = pack(&[part(&[5], 12, &[1])], Bucket::of(1, 1, 8), &[], 99, &mut bytes);
        assert_eq!(words(&bytes, layout.tables, 3), [5, 99, 99]);
    }

    #[test]
    fn runs_are_of_one_sequence_each() {
        let parts = [part(&[], 0, &[1; 5]), part(&[], 0, &[1]), part(&[], 9, &[1; 4])];
        let found: Vec<_> = runs(&parts, 4).iter().map(|run| (run.first, run.count)).collect();
        assert_eq!(found, [(0, 4), (4, 1), (5, 1), (6, 4)]);
    }

    #[test]
    fn a_longer_list_than_the_device_keeps_is_cut() {
        let mut bytes = [0; 16];
        let sampling = DraftSampling { top_m: 100, ..DraftSampling::new(1, 0.5) };
        pack_sampling(Some(&sampling), &mut bytes);
        assert_eq!(f64::from_le_bytes(bytes[..8].try_into().unwrap()), 0.5);
        assert_eq!(words(&bytes, 8, 2), [32, i32::MAX as u32]);
    }

    #[test]
    fn a_fault_is_no_draft() {
        let mut bytes = [0; DRAWN];
        bytes[DRAWN - 4] = 1;
        assert_eq!(unpack(&bytes, &DraftSampling::new(1, 1.0)), None);
    }
}
