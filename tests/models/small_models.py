"""Small random models of every architecture that the draft engine reads, by transformers' own classes.

Each has what tells a right implementation from a nearly right one: grouped queries, weights of norms that are not 1,
biases that are not 0, heads whose width is not the hidden size by their number, rotations that are stretched.
"""

import json
import shutil
from pathlib import Path

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

# Every width is a multiple of 256, so that every type of a GGUF file fits.
SIZES = {
    "vocab_size": 320,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}

# Contexts of the tests go far beyond the 64 positions, and a wave of 64 / 8 turns is stretched already.
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def llama() -> PreTrainedModel:
    config = LlamaConfig(**SIZES, rope_parameters=LLAMA3_ROPE, rms_norm_eps=1e-5, tie_word_embeddings=False)
    return _randomised(LlamaForCausalLM(config))


def qwen2() -> PreTrainedModel:
    rope = {"rope_type": "default", "rope_theta": 1000000.0}
    return _randomised(Qwen2ForCausalLM(Qwen2Config(**SIZES, rope_parameters=rope, tie_word_embeddings=True)))


def qwen3() -> PreTrainedModel:
    rope = {"rope_type": "default", "rope_theta": 1000000.0}
    config = Qwen3Config(**SIZES, head_dim=192, rope_parameters=rope, tie_word_embeddings=False)
    return _randomised(Qwen3ForCausalLM(config))


MODELS = {"llama": llama, "qwen2": qwen2, "qwen3": qwen3}


def save_all(out: Path) -> list[Path]:
    """Writes a folder for each model under `out`, in every type and both forms of a configuration."""
    llama().float().save_pretrained(out / "llama")
    qwen2().half().save_pretrained(out / "qwen2")
    qwen3().bfloat16().save_pretrained(out / "qwen3", max_shard_size="500KB")
    shards = len(list((out / "qwen3").glob("*.safetensors")))
    assert shards > 2, f"{shards} files: nothing is sharded"
    older = shutil.copytree(out / "llama", out / "llama-older")
    _write_as_before_transformers_5(older / "config.json")
    return [out / name for name in ("llama", "llama-older", "qwen2", "qwen3")]


def _write_as_before_transformers_5(path: Path) -> None:
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope, "torch_dtype": config.pop("dtype")}
    path.write_text(json.dumps(config))


@torch.no_grad()
def _randomised(model: PreTrainedModel) -> PreTrainedModel:
    """The same model with other weights, always the same ones. What transformers begins with would hide mistakes: zeros
    for biases, ones for norms, and so little spread elsewhere that every logit is all but alike."""
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        around, spread = (1.0, 0.3) if name.endswith("norm.weight") else (0.0, 0.08)
        spread = 0.5 if name.endswith(".bias") else spread
        weight.copy_(around + spread * torch.randn(weight.shape, generator=generator))
    return model
