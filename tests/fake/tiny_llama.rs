//! A tiny draft model over the fake's vocabulary, as a Hugging Face folder with the fake's tokenizer.

use std::path::Path;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Map, json};

use super::support::fake_vllm::TextCodec;

const HIDDEN: usize = 64;
const INTERMEDIATE: usize = 96;

/// Writes a model of random weights for the vocabulary of `codec`, which has `vocabulary` ids.
pub fn write(folder: &Path, codec: &TextCodec, vocabulary: usize) {
    codec.write(folder);
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "vocab_size": vocabulary, "hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true,
    });
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let layer = |name: &str| format!("model.layers.0.{name}.weight");
    let tensors = [
        ("model.embed_tokens.weight".to_owned(), vec![vocabulary, HIDDEN]),
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
        (layer("input_layernorm"), vec![HIDDEN]),
        (layer("post_attention_layernorm"), vec![HIDDEN]),
        (layer("self_attn.q_proj"), vec![HIDDEN, HIDDEN]),
        (layer("self_attn.k_proj"), vec![HIDDEN / 2, HIDDEN]),
        (layer("self_attn.v_proj"), vec![HIDDEN / 2, HIDDEN]),
        (layer("self_attn.o_proj"), vec![HIDDEN, HIDDEN]),
        (layer("mlp.gate_proj"), vec![INTERMEDIATE, HIDDEN]),
        (layer("mlp.up_proj"), vec![INTERMEDIATE, HIDDEN]),
        (layer("mlp.down_proj"), vec![HIDDEN, INTERMEDIATE]),
    ];
    let mut rng = StdRng::seed_from_u64(5);
    let mut header = Map::new();
    let mut data: Vec<u8> = Vec::new();
    for (name, shape) in tensors {
        let start = data.len();
        for _ in 0..shape.iter().product::<usize>() {
            data.extend(rng.random_range(-0.5_f32..0.5).to_le_bytes());
        }
        header.insert(name, json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]}));
    }
    let header = serde_json::Value::Object(header).to_string();
    let length = (header.len() as u64).to_le_bytes();
    std::fs::write(folder.join("model.safetensors"), [&length[..], header.as_bytes(), &data].concat()).unwrap();
}
