//! What is compiled: the kernels' sources, the definitions that go with them, and who holds which kernel.

use std::fmt::Write as _;

use super::geometry::{self, Machine, Product, Width};
use crate::model::config::ModelConfig;

const INTRINSICS: &str = include_str!("../../../kernels/intrinsics.cu");
const SHAPE: &str = include_str!("../../../kernels/shape.cu");
const PRODUCT: &str = include_str!("../../../kernels/product.cu");
const PROJECT: &str = include_str!("../../../kernels/project.cu");
const HEADS: &str = include_str!("../../../kernels/heads.cu");
const ATTENTION: &str = include_str!("../../../kernels/attention.cu");
const PREFILL: &str = include_str!("../../../kernels/prefill.cu");
const ROWS: &str = include_str!("../../../kernels/rows.cu");
const SAMPLE: &str = include_str!("../../../kernels/sample.cu");

/// A kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kernel {
    Embed,
    StoreHeads,
    Attend,
    Sample,
    NormRows,
    AttendRows,
    SiluRows,
    Product(Product, Width),
}

impl Kernel {
    /// Its name in the sources.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Embed => "embed",
            Self::StoreHeads => "store_heads",
            Self::Attend => "attend",
            Self::Sample => "sample",
            Self::NormRows => "norm_rows",
            Self::AttendRows => "attend_rows",
            Self::SiluRows => "silu_rows",
            Self::Product(Product::Qkv, _) => "qkv",
            Self::Product(Product::Output, _) => "output",
            Self::Product(Product::GateUp, _) => "gate_up",
            Self::Product(Product::Down, _) => "down",
            Self::Product(Product::Head, _) => "head",
        }
    }

    /// Which module holds it.
    pub(super) fn module(self) -> ModuleId {
        match self {
            Self::Product(_, width) => ModuleId::Products(width),
            _ => ModuleId::Rest,
        }
    }
}

/// A unit of compilation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum ModuleId {
    /// The products, for so many rows.
    Products(Width),
    /// What does not depend on the number of rows.
    Rest,
}

#[cfg(test)]
impl ModuleId {
    pub(super) const ALL: [Self; 5] = [
        Self::Rest,
        Self::Products(Width::Split),
        Self::Products(Width::Tiles(1)),
        Self::Products(Width::Tiles(2)),
        Self::Products(Width::Tiles(4)),
    ];

    pub(super) fn kernels(self) -> Vec<Kernel> {
        match self {
            Self::Products(width) => Product::ALL.map(|product| Kernel::Product(product, width)).to_vec(),
            Self::Rest => vec![
                Kernel::Embed,
                Kernel::StoreHeads,
                Kernel::Attend,
                Kernel::Sample,
                Kernel::NormRows,
                Kernel::AttendRows,
                Kernel::SiluRows,
            ],
        }
    }
}

/// A module's source after what depends on the device, [`intrinsics`]; complete but for those.
pub(super) fn source(module: ModuleId, shape: &Shape, machine: &Machine) -> String {
    let mut source = definitions(module, shape, machine);
    let parts: &[&str] = match module {
        ModuleId::Products(_) => &[SHAPE, PRODUCT, PROJECT],
        ModuleId::Rest => &[SHAPE, HEADS, ATTENTION, PREFILL, ROWS, SAMPLE],
    };
    source.extend(parts.iter().copied());
    source
}

/// The source that comes first on a GPU.
pub(super) fn intrinsics() -> &'static str {
    INTRINSICS
}

/// What the sources know of a model.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Shape {
    pub(super) config: ModelConfig,
    pub(super) bias: bool,
    pub(super) qk_norms: bool,
}

fn definitions(module: ModuleId, shape: &Shape, machine: &Machine) -> String {
    let Shape { config, bias, qk_norms } = shape;
    let mut text = String::new();
    let mut define = |name: &str, value: String| {
        let _ = writeln!(text, "#define {name} {value}");
    };
    for (name, value) in [
        ("HIDDEN", config.hidden),
        ("HEADS", config.heads),
        ("KV_HEADS", config.kv_heads),
        ("HEAD_DIM", config.head_dim),
        ("INTERMEDIATE", config.intermediate),
        ("VOCABULARY", config.vocabulary),
        ("LAYERS", config.layers),
        ("QKV_BIAS", usize::from(*bias)),
        ("QK_NORM", usize::from(*qk_norms)),
        ("PARTIAL_BYTES", geometry::partial_bytes(config.head_dim)),
        ("ATTENTION_SHARED", geometry::attention_shared(config.head_dim)),
        ("TEAM_SHARED", geometry::team_shared(config.head_dim)),
    ] {
        define(name, value.to_string());
    }
    define("EPSILON", format!("{:e}f", config.rms_epsilon));
    if let ModuleId::Products(width) = module {
        define("ROW_TILES", width.tiles().to_string());
        define("ROW_SPLIT", width.is_split().to_string());
        for product in Product::ALL {
            let name = Kernel::Product(product, width).name().to_uppercase();
            let cut = geometry::cut(product, width, config, machine);
            define(&format!("TILES_{name}"), cut.tiles.to_string());
            define(&format!("STAGES_{name}"), cut.stages.to_string());
        }
    }
    text
}
