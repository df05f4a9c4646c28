"""GGUF files as llama.cpp's converter writes them, of the models in small_models.py."""

from pathlib import Path

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, MODEL_ARCH, GGMLQuantizationType, GGUFWriter, get_tensor_name_map, quants
from transformers import PreTrainedModel

ARCHITECTURES = {"llama": MODEL_ARCH.LLAMA, "qwen2": MODEL_ARCH.QWEN2, "qwen3": MODEL_ARCH.QWEN3}

# Types that the gguf package cannot make. Where in a block are the scale and, where there is one, the scale of the
# minimum; and the ratio of the two at which weights are spread around 0.
RANDOM_BLOCKS = {
    "Q2_K": (80, 82, 1.5),
    "Q3_K": (108, None, 0.0),
    "Q4_K": (0, 2, 7.5),
    "Q5_K": (0, 2, 15.5),
    "Q6_K": (208, None, 0.0),
}
SPREAD = 0.08


@torch.no_grad()
def write(model: PreTrainedModel, kind: str, type_name: str, path: Path) -> None:
    """Writes `model` with matrices of a type, and gives it the weights that the gguf package reads in the file.

    Where that package cannot make the type, the weights are random ones.
    """
    rng = np.random.default_rng(0)
    config = model.config
    writer = GGUFWriter(path, kind)
    _write_shape(writer, config)
    if kind == "llama":
        # Stretched rotations are told by their divisors.
        inverse = model.model.rotary_emb.inv_freq.double().numpy()
        plain = config.rope_parameters["rope_theta"] ** (-2.0 * np.arange(len(inverse)) / (2 * len(inverse)))
        writer.add_tensor("rope_freqs.weight", (plain / inverse).astype(np.float32))
    names = get_tensor_name_map(ARCHITECTURES[kind], config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, weight in model.named_parameters():
        own_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
        values = weight.float().numpy()
        if values.ndim == 1:
            writer.add_tensor(own_name, values)
            continue
        of = heads.get(name.split(".")[-2]) if kind == "llama" else None
        stored = _interleave(values, of) if of else values
        raw, stored = _quantised(stored, type_name, rng)
        writer.add_tensor(own_name, raw, raw_dtype=GGMLQuantizationType[type_name])
        weight.copy_(torch.from_numpy(_halves(stored, of) if of else stored))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_shape(writer: GGUFWriter, config) -> None:
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def _interleave(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head in the order in which llama.cpp rotates them: neighbours, not halves."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _halves(weight: np.ndarray, heads: int) -> np.ndarray:
    """What `_interleave` was given."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _quantised(values: np.ndarray, type_name: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A matrix as the file holds it, and the values that this stands for."""
    kind = GGMLQuantizationType[type_name]
    values = np.ascontiguousarray(values)
    raw = _random_blocks(values.shape, type_name, rng) if type_name in RANDOM_BLOCKS else quants.quantize(values, kind)
    return raw, quants.dequantize(raw, kind)


def _random_blocks(shape: tuple[int, int], type_name: str, rng: np.random.Generator) -> np.ndarray:
    """Blocks whose every bit is random, but for the scales, which give the usual spread."""
    kind = GGMLQuantizationType[type_name]
    rows, columns = shape
    block, size = GGML_QUANT_SIZES[kind]
    raw = rng.integers(0, 256, (rows * columns // block, size), dtype=np.uint8)
    scale_at, minimum_at, ratio = RANDOM_BLOCKS[type_name]

    def scale_by(factor: float) -> np.ndarray:
        for at, scale in ((scale_at, factor), (minimum_at, factor * ratio)):
            if at is not None:
                raw[:, at : at + 2] = np.array([scale], dtype=np.float16).view(np.uint8)
        return raw.reshape(rows, columns // block * size)

    return scale_by(SPREAD / quants.dequantize(scale_by(1.0), kind).std())
