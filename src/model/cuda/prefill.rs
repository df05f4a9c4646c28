//! Passes of more rows than the decode kernels take: products by a library, all else by kernels of their own. They only
//! fill the cache.

use super::batch::Layout;
use super::device::{Address, Argument, Launch, Multiply, MultiplyShape, Plus, Runs, Work};
use super::geometry::{
    self, LONG_PASS, LONG_STEP, NORM_ROWS, NORM_THREADS, Product, SILU_THREADS, TEAM_QUERIES, TEAM_THREADS,
};
use super::passes::Planner;
use super::source::Kernel;
use crate::model::config::ModelConfig;

/// Products of a layer, in their order.
const PRODUCTS: [Product; 4] = [Product::Qkv, Product::Output, Product::GateUp, Product::Down];

/// All products of long passes: those of a layer for every number of rows.
pub(super) fn shapes(config: &ModelConfig, bias: bool) -> Vec<MultiplyShape> {
    let counts = (1..=LONG_PASS / LONG_STEP).map(|steps| steps * LONG_STEP);
    counts.flat_map(|rows| PRODUCTS.map(|product| shape(product, rows, config, bias))).collect()
}

/// A product for at least so many rows.
fn shape(product: Product, rows: usize, config: &ModelConfig, bias: bool) -> MultiplyShape {
    let (width, depth) = product.matrix(config);
    let plus = match product {
        Product::Qkv if bias => Plus::Bias,
        Product::Output | Product::Down => Plus::Output,
        _ => Plus::Nothing,
    };
    MultiplyShape { rows: rows.next_multiple_of(LONG_STEP), width, depth, plus }
}

/// Rows of a run that attention takes together.
pub(super) fn run_length(config: &ModelConfig) -> usize {
    TEAM_QUERIES / config.group()
}

impl Planner {
    /// A pass of at most [`LONG_PASS`] rows in so many runs. Rows beyond them, up to a multiple of [`LONG_STEP`], go
    /// through the products with whatever they hold.
    pub(super) fn prefill(&self, layout: &Layout, rows: usize, runs: usize) -> Vec<Work> {
        let (places, config) = (&self.places, &self.config);
        let of = layout.first_rows(places.inputs);
        let places_of_runs =
            Runs { first: places.inputs.plus(layout.run_first), count: places.inputs.plus(layout.run_count) };
        let normed = |weight: Address| Launch {
            kernel: Kernel::NormRows,
            grid: [rows.div_ceil(NORM_ROWS), 1, 1],
            threads: NORM_THREADS,
            shared: 0,
            arguments: vec![places.x.into(), weight.into(), places.normed.into(), rows.into()],
            writes: vec![(places.normed, rows * config.hidden * size_of::<u16>())],
        };
        let product = |product: Product, weights: Address, bias: Address, input: Address, output: Address| {
            let shape = shape(product, rows, config, bias != Address::NULL);
            Work::Product(Multiply { shape, weights, input, bias, output })
        };
        let mut work = Vec::new();
        let mut kernels = vec![self.embed(layout, rows)];
        for (index, layer) in places.layers.iter().enumerate() {
            kernels.push(normed(layer.attention_norm));
            work.push(Work::Kernels(std::mem::take(&mut kernels)));
            work.push(product(Product::Qkv, layer.qkv, layer.qkv_bias, places.normed, places.qkv));
            let attend = Launch {
                kernel: Kernel::AttendRows,
                grid: [runs, config.kv_heads, 1],
                threads: TEAM_THREADS,
                shared: geometry::team_shared(config.head_dim),
                arguments: vec![
                    places.qkv.into(),
                    layer.query_norm.into(),
                    places.frequencies.into(),
                    places.cache.into(),
                    index.into(),
                    Argument::Rows(of),
                    Argument::Runs(places_of_runs),
                    places.attended.into(),
                ],
                writes: vec![],
            };
            work.push(Work::Kernels(vec![self.store_heads(layer, index, rows, of), attend]));
            work.push(product(Product::Output, layer.output, Address::NULL, places.attended, places.x));
            work.push(Work::Kernels(vec![normed(layer.mlp_norm)]));
            work.push(product(Product::GateUp, layer.gate_up, Address::NULL, places.normed, places.gated));
            let silu = Launch {
                kernel: Kernel::SiluRows,
                grid: [(config.intermediate / 2).div_ceil(SILU_THREADS), rows, 1],
                threads: SILU_THREADS,
                shared: 0,
                arguments: vec![places.gated.into(), places.activated.into()],
                writes: vec![],
            };
            work.push(Work::Kernels(vec![silu]));
            work.push(product(Product::Down, layer.down, Address::NULL, places.activated, places.x));
        }
        work
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::weights::KnownShape;

    #[test]
    fn every_product_of_a_long_pass_is_prepared() {
        for known in [KnownShape::Qwen3, KnownShape::Llama1b, KnownShape::SmolLm2] {
            let config = known.config();
            for bias in [false, true] {
                let prepared = shapes(&config, bias);
                for rows in 1..=LONG_PASS {
                    assert!(PRODUCTS.iter().all(|product| prepared.contains(&shape(*product, rows, &config, bias))));
                }
            }
        }
    }

    #[test]
    fn queries_of_a_run_fit_in_a_block() {
        for known in [KnownShape::Qwen3, KnownShape::Llama1b, KnownShape::SmolLm2] {
            let config = known.config();
            let queries = run_length(&config) * config.group();
            assert!(queries <= TEAM_QUERIES && queries + config.group() > TEAM_QUERIES);
        }
    }
}
