//! The CPU's keys and values, page by page.

use super::backend::{PAGE, PageId};

/// Pages that are allocated together: a head's keys in them follow each other in memory, and so do its values, so that to
/// read a context whose pages have consecutive numbers is to read on.
const RUN: usize = 64;

/// Memory of the pages. The system gives it as it is first written, and it is kept from then on.
pub(super) struct KvStore {
    /// [layers, kv_heads, keys and values, RUN pages, PAGE, head_dim] each.
    runs: Vec<Vec<f32>>,
    shape: PageShape,
}

/// What a page holds, [`PAGE`] positions of it.
#[derive(Clone, Copy)]
pub(super) struct PageShape {
    pub(super) layers: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
}

impl PageShape {
    /// Keys of one head in one layer.
    fn keys(self) -> usize {
        PAGE * self.head_dim
    }

    fn elements(self) -> usize {
        self.layers * self.kv_heads * 2 * self.keys()
    }

    /// What a page takes in memory.
    pub(super) fn bytes(self) -> usize {
        self.elements() * size_of::<f32>()
    }

    /// Where a page's keys, and its values, of a head begin in its run.
    fn offsets(self, page: PageId, layer: usize, kv_head: usize) -> (usize, usize) {
        let keys = (layer * self.kv_heads + kv_head) * 2 * RUN + page as usize % RUN;
        (keys * self.keys(), (keys + RUN) * self.keys())
    }
}

impl KvStore {
    pub(super) fn new(shape: PageShape) -> Self {
        Self { runs: Vec::new(), shape }
    }

    /// Makes sure that there is memory behind `page`.
    pub(super) fn allocate(&mut self, page: PageId) {
        while self.runs.len() <= page as usize / RUN {
            // All zeros, which the system need not write down.
            self.runs.push(vec![0.0; RUN * self.shape.elements()]);
        }
    }

    /// Writes to all that is allocated, so that it is in memory of its own.
    pub(super) fn occupy(&mut self) {
        self.runs.iter_mut().for_each(|run| run.fill(0.01));
    }

    /// Writes one position's keys and values of all heads, each [kv_heads, head_dim], into an allocated page of `table`.
    pub(super) fn write(&mut self, table: &[PageId], position: usize, layer: usize, keys: &[f32], values: &[f32]) {
        let (shape, head_dim) = (self.shape, self.shape.head_dim);
        let page = table[position / PAGE];
        let run = &mut self.runs[page as usize / RUN];
        let pairs = keys.chunks_exact(head_dim).zip(values.chunks_exact(head_dim));
        for (head, (key, value)) in pairs.enumerate() {
            let (keys, values) = shape.offsets(page, layer, head);
            let within = position % PAGE * head_dim;
            run[keys + within..][..head_dim].copy_from_slice(key);
            run[values + within..][..head_dim].copy_from_slice(value);
        }
    }

    /// The first `positions` keys and values of a head, page by page; each [positions of the page, head_dim].
    pub(super) fn read<'a>(
        &'a self,
        table: &'a [PageId],
        layer: usize,
        kv_head: usize,
        positions: usize,
    ) -> impl Iterator<Item = (&'a [f32], &'a [f32])> + Clone {
        let (shape, head_dim) = (self.shape, self.shape.head_dim);
        table[..positions.div_ceil(PAGE)].iter().enumerate().map(move |(index, &page)| {
            let held = (positions - index * PAGE).min(PAGE) * head_dim;
            let run = &self.runs[page as usize / RUN];
            let (keys, values) = shape.offsets(page, layer, kv_head);
            (&run[keys..][..held], &run[values..][..held])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_through_a_table_is_read_through_it() {
        let shape = PageShape { layers: 2, kv_heads: 3, head_dim: 4 };
        assert_eq!(shape.bytes(), 2 * 3 * 2 * PAGE * 4 * 4);
        let mut store = KvStore::new(shape);
        let tables: [&[PageId]; 2] = [&[65, 0, 3], &[1, 2, 64]];
        let value = |table: usize, position: usize, layer: usize, head: usize, element: usize| {
            ((((table * 100 + position) * 2 + layer) * 3 + head) * 4 + element) as f32
        };
        for (number, table) in tables.into_iter().enumerate() {
            table.iter().for_each(|page| store.allocate(*page));
            for (position, layer) in (0..37).flat_map(|position| [(position, 0), (position, 1)]) {
                let of = |head, element| value(number, position, layer, head, element);
                let keys: Vec<f32> = (0..12).map(|index| of(index / 4, index % 4)).collect();
                let values: Vec<f32> = keys.iter().map(|key| -key).collect();
                store.write(table, position, layer, &keys, &values);
            }
        }
        for (number, table) in tables.into_iter().enumerate() {
            for positions in [1, 15, 16, 17, 32, 37] {
                let (keys, values): (Vec<_>, Vec<_>) = store.read(table, 1, 2, positions).unzip();
                let expected: Vec<f32> =
                    (0..positions * 4).map(|index| value(number, index / 4, 1, 2, index % 4)).collect();
                assert_eq!(keys.concat(), expected);
                assert!(values.concat().iter().zip(&expected).all(|(value, key)| *value == -key));
            }
        }
    }
}
