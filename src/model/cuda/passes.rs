//! Which kernels a pass launches, in order, with what: pure data from where things are.

use super::batch::{Bucket, DRAWN, Layout, TOP};
use super::device::{Address, Argument, Launch, Rows, Runs};
use super::geometry::{self, ATTENTION_THREADS, Machine, PRODUCT_THREADS, Product, Width};
use super::source::Kernel;
use crate::model::config::ModelConfig;

/// Threads of the kernels that are not products or attention.
const ROW_THREADS: usize = 256;

/// Where a layer's weights are.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LayerPlaces {
    pub(super) attention_norm: Address,
    pub(super) qkv: Address,
    pub(super) qkv_bias: Address,
    pub(super) query_norm: Address,
    pub(super) key_norm: Address,
    pub(super) output: Address,
    pub(super) mlp_norm: Address,
    pub(super) gate_up: Address,
    pub(super) down: Address,
}

/// Where everything is on the device. R is [`Width::MOST`], L the rows of the longest pass.
pub(super) struct Places {
    pub(super) embedding: Address,
    pub(super) head: Address,
    pub(super) norm: Address,
    pub(super) frequencies: Address,
    pub(super) layers: Vec<LayerPlaces>,
    /// [pages + 1, layers, kv_heads]; the last page is the one for rows that go nowhere.
    pub(super) cache: Address,
    /// What is uploaded for a pass.
    pub(super) inputs: Address,
    /// [L, hidden], float32: the residual stream.
    pub(super) x: Address,
    /// [L, query_width + 2 · kv_width], float32.
    pub(super) qkv: Address,
    /// [L, query_width] in bfloat16.
    pub(super) attended: Address,
    /// [L, intermediate] in bfloat16.
    pub(super) activated: Address,
    /// [L, hidden] in bfloat16, of passes whose products a library does.
    pub(super) normed: Address,
    /// [L, 2 · intermediate], float32, of the same.
    pub(super) gated: Address,
    /// [R, vocabulary], float32.
    pub(super) logits: Address,
    /// Attention's partial results.
    pub(super) partials: Address,
    /// [R, kv_heads], then [R]: zero between launches.
    pub(super) attention_counters: Address,
    pub(super) sample_counters: Address,
    /// [R, slices, 32] of 8 bytes.
    pub(super) found: Address,
    /// [steps, R] drafts.
    pub(super) drawn: Address,
}

/// Decides launches for one model on one machine.
pub(super) struct Planner {
    pub(super) config: ModelConfig,
    pub(super) machine: Machine,
    pub(super) places: Places,
}

/// How keys and values of a pass's rows come to the cache.
#[derive(Clone, Copy)]
enum Storing {
    /// Each row is alone in its sequence: attention does it on the way.
    Fused,
    /// By a kernel of its own, since rows see each other; attention takes them in so many runs.
    First(Runs, usize),
}

impl Planner {
    /// Bytes of partial results at most.
    pub(super) fn partial_bytes(config: &ModelConfig, machine: &Machine) -> usize {
        let blocks = (1..=Width::MOST).map(|runs| runs * geometry::splits(runs, config, machine)).max().unwrap_or(0);
        blocks * config.kv_heads * geometry::partial_bytes(config.head_dim)
    }

    /// A pass that fills the cache, and gives the last rows' logits if asked.
    pub(super) fn extend(&self, layout: &Layout, rows: usize, runs: usize, logits: Option<usize>) -> Vec<Launch> {
        let inputs = self.places.inputs;
        let places = Runs { first: inputs.plus(layout.run_first), count: inputs.plus(layout.run_count) };
        let mut launches = vec![self.embed(layout, rows)];
        self.layers(rows, layout.first_rows(inputs), Storing::First(places, runs), &mut launches);
        launches.extend(logits.map(|batch| self.head(batch, inputs.plus(layout.last))));
        launches
    }

    /// A pass that runs the first tokens and drafts: a graph.
    pub(super) fn draft(&self, bucket: Bucket) -> Vec<Launch> {
        let Bucket { rows, batch, steps, several } = bucket;
        let layout = Layout::new(rows, batch, steps);
        let inputs = self.places.inputs;
        let mut launches = vec![self.embed(&layout, rows)];
        for step in 0..steps {
            if step > 0 {
                self.layers(batch, layout.draft_rows(inputs, step - 1), Storing::Fused, &mut launches);
            } else if several {
                let alone = Runs { first: Address::NULL, count: Address::NULL };
                self.layers(rows, layout.first_rows(inputs), Storing::First(alone, rows), &mut launches);
            } else {
                self.layers(rows, layout.first_rows(inputs), Storing::Fused, &mut launches);
            }
            let pick = if step == 0 && several { inputs.plus(layout.last) } else { Address::NULL };
            launches.push(self.head(batch, pick));
            launches.push(self.sample(&layout, batch, step));
        }
        launches
    }

    pub(super) fn embed(&self, layout: &Layout, rows: usize) -> Launch {
        let places = &self.places;
        Launch {
            kernel: Kernel::Embed,
            grid: [rows, 1, 1],
            threads: ROW_THREADS,
            shared: 0,
            arguments: vec![places.embedding.into(), places.inputs.plus(layout.tokens).into(), places.x.into()],
            writes: vec![(places.x, rows * self.config.hidden * size_of::<f32>())],
        }
    }

    fn layers(&self, rows: usize, of: Rows, storing: Storing, launches: &mut Vec<Launch>) {
        let (places, config) = (&self.places, &self.config);
        let width = Width::of(rows);
        let stream = (places.x, rows * config.hidden * size_of::<f32>());
        let rounded = |columns: usize| width.lines(rows) * columns * size_of::<u16>();
        for (index, layer) in places.layers.iter().enumerate() {
            let qkv_width = config.query_width() + 2 * config.kv_width();
            launches.push(self.product(
                Product::Qkv,
                rows,
                &[layer.qkv, layer.qkv_bias, layer.attention_norm, places.x, places.qkv],
                (places.qkv, rows * qkv_width * size_of::<f32>()),
            ));
            let (runs, count) = match storing {
                Storing::Fused => (Runs { first: Address::NULL, count: Address::NULL }, rows),
                Storing::First(runs, count) => (runs, count),
            };
            if let Storing::First(..) = storing {
                launches.push(self.store_heads(layer, index, rows, of));
            }
            launches.push(Launch {
                kernel: Kernel::Attend,
                grid: [geometry::splits(count, config, &self.machine), config.kv_heads, count],
                threads: ATTENTION_THREADS,
                shared: geometry::attention_shared(config.head_dim),
                arguments: vec![
                    places.qkv.into(),
                    layer.query_norm.into(),
                    layer.key_norm.into(),
                    places.frequencies.into(),
                    places.cache.into(),
                    index.into(),
                    Argument::Rows(of),
                    Argument::Runs(runs),
                    rows.into(),
                    usize::from(width.is_split()).into(),
                    usize::from(matches!(storing, Storing::Fused)).into(),
                    places.partials.into(),
                    places.attention_counters.into(),
                    places.attended.into(),
                ],
                writes: vec![(places.attended, rounded(config.query_width()))],
            });
            let [output, gate_up, down] = [
                (Product::Output, [layer.output, places.attended, places.x].as_slice(), stream),
                (
                    Product::GateUp,
                    &[layer.gate_up, layer.mlp_norm, places.x, places.activated],
                    (places.activated, rounded(config.intermediate)),
                ),
                (Product::Down, &[layer.down, places.activated, places.x], stream),
            ]
            .map(|(product, arguments, writes)| self.product(product, rows, arguments, writes));
            launches.extend([output, gate_up, down]);
        }
    }

    /// Keys and values of rows to the cache of a layer.
    pub(super) fn store_heads(&self, layer: &LayerPlaces, index: usize, rows: usize, of: Rows) -> Launch {
        let places = &self.places;
        Launch {
            kernel: Kernel::StoreHeads,
            grid: [rows, self.config.kv_heads, 1],
            threads: 32,
            shared: 0,
            arguments: vec![
                places.qkv.into(),
                layer.key_norm.into(),
                places.frequencies.into(),
                places.cache.into(),
                index.into(),
                Argument::Rows(of),
            ],
            writes: vec![],
        }
    }

    fn head(&self, batch: usize, pick: Address) -> Launch {
        let places = &self.places;
        self.product(
            Product::Head,
            batch,
            &[places.head, places.norm, places.x, pick, places.logits],
            (places.logits, batch * self.config.vocabulary * size_of::<f32>()),
        )
    }

    /// A product's launch; every one ends with the number of rows and the phase.
    fn product(&self, product: Product, rows: usize, arguments: &[Address], writes: (Address, usize)) -> Launch {
        let grid = geometry::grid(product, rows, &self.config, &self.machine);
        let counts: [Argument; 2] = [rows.into(), grid.phase.into()];
        let arguments = arguments.iter().map(|address| Argument::Address(*address)).chain(counts).collect();
        Launch {
            kernel: Kernel::Product(product, Width::of(rows)),
            grid: [grid.blocks, 1, 1],
            threads: PRODUCT_THREADS,
            shared: grid.shared,
            arguments,
            writes: vec![writes],
        }
    }

    fn sample(&self, layout: &Layout, batch: usize, step: usize) -> Launch {
        let places = &self.places;
        let drawn = places.drawn.plus(step * batch * DRAWN);
        Launch {
            kernel: Kernel::Sample,
            grid: [geometry::slices(&self.config), batch, 1],
            threads: ROW_THREADS,
            shared: 0,
            arguments: vec![
                places.logits.into(),
                places.inputs.plus(layout.samplings).into(),
                places.inputs.plus(layout.uniforms + step * batch * size_of::<f64>()).into(),
                places.embedding.into(),
                places.found.into(),
                places.sample_counters.into(),
                drawn.into(),
                places.x.into(),
            ],
            writes: vec![(places.x, batch * self.config.hidden * size_of::<f32>()), (drawn, batch * DRAWN)],
        }
    }

    /// Bytes of candidates at most.
    pub(super) fn found_bytes(config: &ModelConfig) -> usize {
        Width::MOST * geometry::slices(config) * TOP * size_of::<u64>()
    }
}
