//! The CPU's keys and values, page by page.

use super::backend::{PAGE, PageId};
use super::kernels::attention::{self, Page};
use super::kernels::element::Element;
use super::options::Precision;

/// Pages that are allocated together: a head's keys in them follow each other in memory, and so do its values, so that to
/// read a context whose pages have consecutive numbers is to read on.
const RUN: usize = 64;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Memory of the pages. The system gives it as it is first written, and it is kept from then on.
pub(super) enum KvStore {
    /// For [`Precision::F32`].
    Exact(Pages<f32>),
    /// For [`Precision::Q8_0`]: half of what there is to read.
    Rounded(Pages<i16>),
}

impl KvStore {
    pub(super) fn new(shape: PageShape, precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::Exact(Pages::new(shape)),
            Precision::Q8_0 => Self::Rounded(Pages::new(shape)),
        }
    }

    /// Makes sure that there is memory behind `page`.
    pub(super) fn allocate(&mut self, page: PageId) {
        match self {
            Self::Exact(pages) => pages.allocate(page),
            Self::Rounded(pages) => pages.allocate(page),
        }
    }

    /// Writes to all that is allocated, so that it is in memory of its own.
    pub(super) fn occupy(&mut self) {
        match self {
            Self::Exact(pages) => pages.occupy(),
            Self::Rounded(pages) => pages.occupy(),
        }
    }

    /// Writes one position's keys and values of all heads, each [kv_heads, head_dim], into an allocated page of `table`.
    pub(super) fn write(&mut self, table: &[PageId], position: usize, layer: usize, keys: &[f32], values: &[f32]) {
        match self {
            Self::Exact(pages) => pages.write(table, position, layer, keys, values),
            Self::Rounded(pages) => pages.write(table, position, layer, keys, values),
        }
    }

    /// Attention of the `queries` that share a key head to its first `positions`, at least one; `queries` and `output`
    /// are [heads, head_dim].
    pub(super) fn attend(
        &self,
        queries: &[f32],
        table: &[PageId],
        layer: usize,
        kv_head: usize,
        positions: usize,
        output: &mut [f32],
    ) {
        match self {
            Self::Exact(pages) => pages.attend(queries, table, layer, kv_head, positions, output),
            Self::Rounded(pages) => pages.attend(queries, table, layer, kv_head, positions, output),
        }
    }
}

/// What a page holds, [`PAGE`] positions of it.
#[derive(Clone, Copy)]
pub(super) struct PageShape {
    pub(super) layers: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
}

impl PageShape {
    /// Heads of all layers, those of keys and those of values.
    fn heads(self) -> usize {
        self.layers * self.kv_heads * 2
    }

    /// Elements of one head's keys.
    fn keys(self) -> usize {
        PAGE * self.head_dim
    }

    /// What a page takes in memory.
    pub(super) fn bytes(self, precision: Precision) -> usize {
        let element = match precision {
            Precision::F32 => size_of::<f32>(),
            Precision::Q8_0 => size_of::<i16>(),
        };
        self.heads() * (self.keys() * element + size_of::<[f32; PAGE]>())
    }

    /// Where a page's keys, and its values, of a head are in its run, counted in pages of one head.
    fn places(self, page: PageId, layer: usize, kv_head: usize) -> (usize, usize) {
        let keys = (layer * self.kv_heads + kv_head) * 2 * RUN + page as usize % RUN;
        (keys, keys + RUN)
    }
}

/// Pages of one kind of element.
pub(super) struct Pages<E> {
    runs: Vec<Run<E>>,
    shape: PageShape,
}

/// [layers, kv_heads, keys and values, RUN pages] of each.
struct Run<E> {
    /// As [`Page`] has them: keys [head_dim, PAGE], values [PAGE, head_dim].
    elements: Vec<E>,
    /// Where they begin: with a cache line.
    start: usize,
    factors: Vec<[f32; PAGE]>,
}

impl<E: Element> Pages<E> {
    fn new(shape: PageShape) -> Self {
        Self { runs: Vec::new(), shape }
    }

    fn allocate(&mut self, page: PageId) {
        let pages = self.shape.heads() * RUN;
        while self.runs.len() <= page as usize / RUN {
            // All zeros, which the system need not write down.
            let elements = vec![E::default(); pages * self.shape.keys() + LINE];
            let start = elements.as_ptr().align_offset(LINE).min(LINE);
            self.runs.push(Run { elements, start, factors: vec![[0.0; PAGE]; pages] });
        }
    }

    fn occupy(&mut self) {
        for run in &mut self.runs {
            run.elements.fill(E::default());
            run.factors.iter_mut().for_each(|factors| factors.fill(0.01));
        }
    }

    fn write(&mut self, table: &[PageId], position: usize, layer: usize, keys: &[f32], values: &[f32]) {
        let (shape, head_dim) = (self.shape, self.shape.head_dim);
        let (page, within) = (table[position / PAGE], position % PAGE);
        let Run { elements, start, factors } = &mut self.runs[page as usize / RUN];
        let elements = &mut elements[*start..];
        let pairs = keys.chunks_exact(head_dim).zip(values.chunks_exact(head_dim));
        for (head, (key, value)) in pairs.enumerate() {
            let (keys, values) = shape.places(page, layer, head);
            let places = elements[keys * shape.keys()..][..shape.keys()].iter_mut();
            factors[keys][within] = E::write(key, places.skip(within).step_by(PAGE));
            let places = elements[values * shape.keys() + within * head_dim..][..head_dim].iter_mut();
            factors[values][within] = E::write(value, places);
        }
    }

    fn attend(
        &self,
        queries: &[f32],
        table: &[PageId],
        layer: usize,
        kv_head: usize,
        positions: usize,
        output: &mut [f32],
    ) {
        let shape = self.shape;
        let pages = table[..positions.div_ceil(PAGE)].iter().map(|&page| {
            let run = &self.runs[page as usize / RUN];
            let (keys, values) = shape.places(page, layer, kv_head);
            let elements = |place: usize| &run.elements[run.start + place * shape.keys()..][..shape.keys()];
            Page {
                keys: elements(keys),
                values: elements(values),
                key_factors: &run.factors[keys],
                value_factors: &run.factors[values],
            }
        });
        attention::attend(queries, pages, positions, shape.head_dim, output);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: PageShape = PageShape { layers: 2, kv_heads: 3, head_dim: 4 };

    /// A key or a value that nothing else in the store is like.
    fn vector(table: usize, position: usize, layer: usize, head: usize) -> [f32; 4] {
        let number = ((table * 100 + position) * 2 + layer) * 3 + head;
        std::array::from_fn(|element| (number * 4 + element) as f32)
    }

    #[test]
    fn what_is_written_through_a_table_is_attended_to_through_it() {
        for precision in [Precision::F32, Precision::Q8_0] {
            let mut store = KvStore::new(SHAPE, precision);
            let tables: [&[PageId]; 2] = [&[65, 0, 3], &[1, 2, 64]];
            for (number, table) in tables.into_iter().enumerate() {
                table.iter().for_each(|page| store.allocate(*page));
                for (position, layer) in (0..37).flat_map(|position| [(position, 0), (position, 1)]) {
                    let values: Vec<f32> = (0..3).flat_map(|head| vector(number, position, layer, head)).collect();
                    // One key stands out, so that what is attended to is the value at its position.
                    let keys: Vec<f32> = values.iter().map(|value| if position == 20 { *value } else { 0.0 }).collect();
                    store.write(table, position, layer, &keys, &values);
                }
            }
            for (number, table) in tables.into_iter().enumerate() {
                for positions in [21, 32, 37] {
                    let (expected, mut output) = (vector(number, 20, 1, 2), [0.0; 4]);
                    store.attend(&[1.0; 4], table, 1, 2, positions, &mut output);
                    assert!(output.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4 * b), "{output:?}");
                }
                let mut output = [0.0; 4];
                store.attend(&[1.0; 4], table, 1, 2, 3, &mut output);
                let middle = vector(number, 1, 1, 2);
                assert!(output.iter().zip(middle).all(|(a, b)| (a - b).abs() < 1e-3 * b), "{output:?}");
            }
        }
    }

    #[test]
    fn a_page_takes_what_its_elements_and_factors_do() {
        assert_eq!(SHAPE.bytes(Precision::F32), 2 * 3 * 2 * PAGE * (4 * 4 + 4));
        assert_eq!(SHAPE.bytes(Precision::Q8_0), 2 * 3 * 2 * PAGE * (4 * 2 + 4));
    }
}
