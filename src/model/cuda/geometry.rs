//! How kernels are cut for a GPU: tiles of a block, depth of its ring of weights, shared memory, blocks. Pure functions
//! of the model's shape and of what the GPU says of itself; `kernels/product.cu` explains the terms.

use crate::model::config::ModelConfig;

/// Threads of a product's block.
pub(super) const PRODUCT_THREADS: usize = 256;
/// Threads of attention's block.
pub(super) const ATTENTION_THREADS: usize = 128;
/// Queries that attention takes together.
pub(super) const QUERIES: usize = 8;
/// Rows of a pass whose products a library does, at most. About as many as give each multiprocessor of a large GPU one
/// tile of the narrower products of a small model.
pub(super) const LONG_PASS: usize = 512;
/// Products of long passes have a multiple of this many rows.
pub(super) const LONG_STEP: usize = 64;
/// Threads of attention's block in long passes.
pub(super) const TEAM_THREADS: usize = 128;
/// Queries that it takes together.
pub(super) const TEAM_QUERIES: usize = 64;
/// Threads of `norm_rows`, and rows that they norm.
pub(super) const NORM_THREADS: usize = 256;
pub(super) const NORM_ROWS: usize = 8;
/// Threads of `silu_rows`, each for two columns.
pub(super) const SILU_THREADS: usize = 256;
/// Logits that a block of `sample` looks at.
const SLICE: usize = 1024;
/// Rows of a weight tile.
const TILE: usize = 8;
/// Columns that a block's warps take in a round.
const ROUND: usize = 256;
const WARPS: usize = PRODUCT_THREADS / 32;
/// Bytes of a ring for each tile and stage.
const STAGE: usize = 16 * PRODUCT_THREADS;
/// Bytes of weights that a block keeps in flight: 40 KB per multiprocessor cover the latency of 3.3 TB/s.
const IN_FLIGHT: usize = 64 << 10;
/// Bytes for lines of activations where they need not all stay.
const LINES: usize = 40 << 10;
/// Shared memory of a GPU that was made for this work: A100 and later of its line.
const ROOMY: usize = 128 << 10;
/// Splits of a context at most.
const MAX_SPLITS: usize = 32;

/// What the GPU is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::model) struct Machine {
    pub(in crate::model) multiprocessors: usize,
    /// Bytes of shared memory that a block may have.
    pub(in crate::model) shared: usize,
    /// Compute capability: 10 · major + minor.
    pub(in crate::model) capability: usize,
}

/// How many rows of activations a product's kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Width {
    /// Up to 8, in 16 bits of precision.
    Split,
    /// Up to 16 · this, in bfloat16.
    Tiles(usize),
}

impl Width {
    /// Rows that one pass takes at most.
    pub(super) const MOST: usize = 64;

    /// The narrowest for `rows`, of 1 to [`Self::MOST`].
    pub(super) fn of(rows: usize) -> Self {
        match rows {
            0..=8 => Self::Split,
            9..=16 => Self::Tiles(1),
            17..=32 => Self::Tiles(2),
            _ => Self::Tiles(4),
        }
    }

    pub(super) fn tiles(self) -> usize {
        match self {
            Self::Split => 1,
            Self::Tiles(tiles) => tiles,
        }
    }

    pub(super) fn is_split(self) -> bool {
        self == Self::Split
    }

    /// Lines of activations in bfloat16 for so many rows.
    pub(super) fn lines(self, rows: usize) -> usize {
        if self.is_split() { 2 * rows } else { rows }
    }

    /// Weight tiles whose results fit in a thread's registers and, added up, in the shared memory beside the rest.
    fn most_tiles(self, machine: &Machine) -> usize {
        match self.tiles() {
            1 => 8,
            4 if machine.shared < ROOMY => 2,
            _ => 4,
        }
    }

    /// Results that a partial sum has for each weight row.
    fn results(self) -> usize {
        if self.is_split() { 8 } else { 16 * self.tiles() }
    }
}

/// A product of a layer, or the head's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Product {
    Qkv,
    Output,
    GateUp,
    Down,
    Head,
}

impl Product {
    pub(super) const ALL: [Self; 5] = [Self::Qkv, Self::Output, Self::GateUp, Self::Down, Self::Head];

    /// Rows and columns of its weights.
    pub(super) fn matrix(self, config: &ModelConfig) -> (usize, usize) {
        match self {
            Self::Qkv => (config.query_width() + 2 * config.kv_width(), config.hidden),
            Self::Output => (config.hidden, config.query_width()),
            Self::GateUp => (2 * config.intermediate, config.hidden),
            Self::Down => (config.hidden, config.intermediate),
            Self::Head => (config.vocabulary, config.hidden),
        }
    }

    /// Tiles that belong together: those of gate and up.
    fn unit(self) -> usize {
        if self == Self::GateUp { 2 } else { 1 }
    }
}

/// How one product is cut: compiled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    /// Tiles of a group; a block takes one group after another.
    pub(super) tiles: usize,
    /// Rounds of a group's weights in flight.
    pub(super) stages: usize,
}

/// How one product is launched for a number of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grid {
    pub(super) blocks: usize,
    /// Bytes of shared memory.
    pub(super) shared: usize,
    /// Columns of activations in shared memory at once.
    pub(super) phase: usize,
}

/// Chooses tiles so that the multiprocessors finish together, as many as possible, and a ring that keeps the memory
/// busy.
pub(super) fn cut(product: Product, width: Width, config: &ModelConfig, machine: &Machine) -> Cut {
    let (rows, columns) = product.matrix(config);
    let all = rows.div_ceil(TILE);
    let unit = product.unit();
    let time = |tiles: usize| all.div_ceil(tiles).div_ceil(machine.multiprocessors) * tiles;
    let candidates = (1..=width.most_tiles(machine)).filter(|tiles| tiles.is_multiple_of(unit));
    // The head's groups are so many that any number is even.
    let tiles = match product {
        Product::Head => 4,
        _ => candidates.min_by_key(|tiles| (time(*tiles), width.most_tiles(machine) - tiles)).unwrap_or(unit),
    };
    let budget = IN_FLIGHT.min(machine.shared * 2 / 7);
    let most = if product == Product::Head { 16 } else { columns.div_ceil(ROUND) };
    Cut { tiles, stages: (budget / (tiles * STAGE)).clamp(2, most.max(2)) }
}

/// Tiles whose results a block adds up at once, as in `project.cu`.
fn pass(product: Product, width: Width, cut: Cut) -> usize {
    if width.is_split() { cut.tiles } else { product.unit() }
}

/// The launch of a product for `rows` rows.
pub(super) fn grid(product: Product, rows: usize, config: &ModelConfig, machine: &Machine) -> Grid {
    let width = Width::of(rows);
    let cut = cut(product, width, config, machine);
    let (matrix_rows, columns) = product.matrix(config);
    let groups = matrix_rows.div_ceil(TILE).div_ceil(cut.tiles);
    let rest = cut.tiles * cut.stages * STAGE
        + WARPS * pass(product, width, cut) * TILE * width.results() * size_of::<f32>()
        + rows * WARPS * size_of::<f32>();
    let lines = |phase: usize| width.lines(rows) * (phase + 32) * size_of::<u16>();
    // The head's blocks take many groups, which all read the same activations: keep them if they fit at all.
    let room = machine.shared.saturating_sub(rest);
    let budget = if product == Product::Head { room } else { room.min(LINES) };
    let phase = if lines(columns) <= budget {
        columns
    } else {
        let fits = (budget / (width.lines(rows) * size_of::<u16>())).saturating_sub(32);
        (fits / ROUND * ROUND).max(ROUND)
    };
    Grid { blocks: groups.min(machine.multiprocessors), shared: rest + lines(phase), phase }
}

/// Bytes of attention's `Partial`.
pub(super) fn partial_bytes(head_dim: usize) -> usize {
    (QUERIES * head_dim + 2 * QUERIES) * size_of::<f32>()
}

/// Bytes of attention's shared memory.
pub(super) fn attention_shared(head_dim: usize) -> usize {
    let ahead = match head_dim {
        0..=64 => 4,
        65..=128 => 2,
        _ => 1,
    };
    let page = 2 * crate::model::backend::PAGE * head_dim * size_of::<u16>();
    let warps = ATTENTION_THREADS / 32;
    ahead * page * warps + 2 * QUERIES * (head_dim + 32) * size_of::<u16>() + warps * partial_bytes(head_dim) + 16
}

/// Bytes of its shared memory in long passes.
pub(super) fn team_shared(head_dim: usize) -> usize {
    let (pages, stages) = (2, if head_dim <= 128 { 3 } else { 2 });
    let page = 2 * crate::model::backend::PAGE * head_dim * size_of::<u16>();
    stages * pages * page + TEAM_QUERIES * (head_dim + 8) * size_of::<u16>()
}

/// Blocks that share a context, so that few rows fill the GPU. A short context uses fewer.
pub(super) fn splits(runs: usize, config: &ModelConfig, machine: &Machine) -> usize {
    (machine.multiprocessors / (runs * config.kv_heads).max(1)).clamp(1, MAX_SPLITS)
}

/// Blocks of `sample` for each row.
pub(super) fn slices(config: &ModelConfig) -> usize {
    config.vocabulary.div_ceil(SLICE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::weights::KnownShape;

    const H100: Machine = Machine { multiprocessors: 132, shared: 227 << 10, capability: 90 };
    const A10: Machine = Machine { multiprocessors: 72, shared: 99 << 10, capability: 86 };

    fn qwen3() -> ModelConfig {
        KnownShape::Qwen3.config()
    }

    /// The share of the multiprocessors' time in which they have work.
    fn balance(product: Product, machine: &Machine, config: &ModelConfig) -> f64 {
        let cut = cut(product, Width::Split, config, machine);
        let tiles = product.matrix(config).0.div_ceil(TILE);
        let rounds = tiles.div_ceil(cut.tiles).div_ceil(machine.multiprocessors);
        tiles as f64 / (rounds * cut.tiles * machine.multiprocessors) as f64
    }

    #[test]
    fn an_h100_is_busy_with_every_product_of_qwen3() {
        for product in Product::ALL {
            let share = balance(product, &H100, &qwen3());
            assert!(share > 0.96, "{product:?}: {share}");
        }
    }

    #[test]
    fn a_block_keeps_enough_in_flight_for_an_h100() {
        for product in Product::ALL {
            let cut = cut(product, Width::Split, &qwen3(), &H100);
            let bytes = cut.tiles * cut.stages * STAGE;
            let whole = product.matrix(&qwen3()).1.div_ceil(ROUND) * cut.tiles * STAGE;
            assert!(bytes >= (40 << 10).min(whole) && bytes <= IN_FLIGHT, "{product:?}: {bytes}");
        }
    }

    #[test]
    fn every_launch_fits_the_shared_memory() {
        for config in [KnownShape::Qwen3, KnownShape::Llama1b, KnownShape::SmolLm2].map(KnownShape::config) {
            for machine in [H100, A10] {
                for product in Product::ALL {
                    for rows in 1..=Width::MOST {
                        let grid = grid(product, rows, &config, &machine);
                        assert!(grid.shared <= machine.shared, "{product:?} of {rows} rows: {grid:?}");
                        let columns = product.matrix(&config).1;
                        assert!(grid.phase == columns || (grid.phase.is_multiple_of(ROUND) && grid.phase < columns));
                    }
                }
                assert!(attention_shared(config.head_dim) <= machine.shared);
                assert!(team_shared(config.head_dim) <= machine.shared);
            }
        }
    }

    #[test]
    fn two_kernels_of_one_row_fit_beside_each_other_on_an_h100() {
        let most = Product::ALL.map(|product| grid(product, 1, &qwen3(), &H100).shared).into_iter().max();
        assert!(2 * most.unwrap() <= H100.shared, "{most:?}");
        assert!(most.unwrap() + attention_shared(128) <= H100.shared);
    }

    #[test]
    fn a_lone_row_is_split_until_the_gpu_is_full() {
        assert_eq!(splits(1, &qwen3(), &H100), 16);
        assert_eq!(splits(4, &qwen3(), &H100), 4);
        assert_eq!(splits(64, &qwen3(), &H100), 1);
    }
}
