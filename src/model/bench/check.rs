//! Whether a backend computes what the model says: its logits beside those of the CPU in float32.

use rand::Rng;

use super::*;

/// Sequences over which positions are spread, so that the reference shares its reads of the weights.
const SEQUENCES: usize = 16;
/// How much longer each sequence's prompt is than the one before.
const STRIDE: usize = 31;

/// How far two backends agree.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Agreement {
    /// Positions that were compared.
    pub positions: usize,
    /// ‖found − wanted‖ / ‖wanted‖ of a position's logits, at the median position.
    pub median_error: f64,
    /// The same at the worst position.
    pub largest_error: f64,
    /// Positions at which the likeliest token is the same.
    pub same_token: usize,
}

/// Tokens that a sequence reads at once, and how many it reads one by one. A model of few positions has short prompts.
fn lengths(sequence: usize, positions: usize, max_positions: usize) -> (usize, usize) {
    let each = positions.div_ceil(SEQUENCES);
    let prompt = (1 + STRIDE * sequence).min(max_positions.saturating_sub(each)).max(1);
    (prompt, each.saturating_sub(1))
}

/// Pages of a sequence.
fn pages_each(positions: usize, max_positions: usize) -> usize {
    let (prompt, more) = lengths(SEQUENCES - 1, positions, max_positions);
    (prompt + more).div_ceil(PAGE)
}

/// Pages that a comparison of so many positions takes.
pub(super) fn pages(positions: usize, max_positions: usize) -> usize {
    if positions == 0 { 0 } else { SEQUENCES * pages_each(positions, max_positions) }
}

impl DraftBench {
    /// Compares the logits of `positions` positions with those of the CPU in float32, which is read from the same source
    /// and runs with so many threads: contexts of random ids, prompts read at once and then a token at a time, several
    /// sequences together. `told` hears how many were compared.
    ///
    /// # Errors
    /// [`ModelError::ContextTooLong`] if the model has too few positions or its cache does not hold all contexts, those of
    /// loading a model and those of a step.
    pub fn check(
        &mut self,
        source: &ModelSource,
        positions: usize,
        threads: usize,
        mut told: impl FnMut(usize),
    ) -> Result<Agreement, ModelError> {
        let max_positions = self.backend.config().max_positions;
        let (prompt, more) = lengths(SEQUENCES - 1, positions, max_positions);
        if prompt + more > max_positions {
            return Err(ModelError::ContextTooLong { length: prompt + more, limit: max_positions });
        }
        let pages = pages(positions, max_positions);
        if pages > self.backend.pages() {
            return Err(ModelError::ContextTooLong { length: pages * PAGE, limit: self.backend.pages() * PAGE });
        }
        let options = ModelOptions { precision: Precision::F32, threads, shortlist: None, ..ModelOptions::default() };
        let mut reference = CpuBackend::load(source, &options)?;
        let mut compared = Comparison::default();
        let mut sequences = sequences(positions, max_positions, self.backend.config().vocabulary);
        // Prompts one by one: together they would take much memory.
        for sequence in &mut sequences {
            let feeds = [sequence.feed()];
            compared.add(positions, &self.logits(&feeds)?, &logits(&mut reference, &feeds, &mut self.rng)?);
            sequence.advance();
            told(compared.errors.len());
        }
        while compared.errors.len() < positions {
            let feeds: Vec<Feed<'_>> = sequences.iter().map(Sequence::feed).collect();
            compared.add(positions, &self.logits(&feeds)?, &logits(&mut reference, &feeds, &mut self.rng)?);
            sequences.iter_mut().for_each(Sequence::advance);
            told(compared.errors.len());
        }
        Ok(compared.finish())
    }

    fn logits(&mut self, feeds: &[Feed<'_>]) -> Result<Vec<Vec<f32>>, ModelError> {
        logits(self.backend.as_mut(), feeds, &mut self.rng)
    }
}

fn logits(backend: &mut dyn Backend, feeds: &[Feed<'_>], rng: &mut StdRng) -> Result<Vec<Vec<f32>>, ModelError> {
    let logits = |outcome| match outcome {
        Outcome::Logits(logits) => logits,
        Outcome::Nothing | Outcome::Drafts(_) => Vec::new(),
    };
    Ok(backend.step(feeds, rng)?.into_iter().map(logits).collect())
}

/// A context, and how far it was run.
struct Sequence {
    pages: Vec<PageId>,
    tokens: Vec<TokenId>,
    held: usize,
    /// Tokens that come next.
    next: usize,
}

impl Sequence {
    fn feed(&self) -> Feed<'_> {
        let tokens = &self.tokens[self.held..][..self.next];
        Feed { pages: &self.pages, start: self.held, tokens, then: Then::Logits }
    }

    fn advance(&mut self) {
        self.held += self.next;
        self.next = 1;
    }
}

fn sequences(positions: usize, max_positions: usize, vocabulary: usize) -> Vec<Sequence> {
    let mut rng = StdRng::seed_from_u64(positions as u64);
    let each = pages_each(positions, max_positions);
    (0..SEQUENCES)
        .map(|index| {
            let (prompt, more) = lengths(index, positions, max_positions);
            let tokens = (0..prompt + more).map(|_| rng.random_range(0..vocabulary) as TokenId).collect();
            // Neighbours in a context are none in memory.
            let pages = (0..each).map(|page| (page * SEQUENCES + index) as PageId).collect();
            Sequence { pages, tokens, held: 0, next: prompt }
        })
        .collect()
}

#[derive(Default)]
struct Comparison {
    errors: Vec<f64>,
    same_token: usize,
}

impl Comparison {
    /// Notes rows of logits, until there are `most` of them.
    fn add(&mut self, most: usize, found: &[Vec<f32>], wanted: &[Vec<f32>]) {
        for (found, wanted) in found.iter().zip(wanted).take(most - self.errors.len()) {
            self.errors.push(relative_error(found, wanted));
            self.same_token += usize::from(likeliest(found) == likeliest(wanted));
        }
    }

    fn finish(mut self) -> Agreement {
        self.errors.sort_by(f64::total_cmp);
        Agreement {
            positions: self.errors.len(),
            median_error: self.errors.get(self.errors.len() / 2).copied().unwrap_or(0.0),
            largest_error: self.errors.last().copied().unwrap_or(0.0),
            same_token: self.same_token,
        }
    }
}

/// ‖found − wanted‖ / ‖wanted‖; infinite where a row is missing or no number is in it.
fn relative_error(found: &[f32], wanted: &[f32]) -> f64 {
    let square = |value: f64| value * value;
    let off: f64 = found.iter().zip(wanted).map(|(found, wanted)| square(f64::from(*found) - f64::from(*wanted))).sum();
    let error = (off / wanted.iter().map(|wanted| square(f64::from(*wanted))).sum::<f64>()).sqrt();
    if found.len() == wanted.len() && error.is_finite() { error } else { f64::INFINITY }
}

/// The first of the largest.
fn likeliest(logits: &[f32]) -> Option<usize> {
    (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]).then(b.cmp(a)))
}
