"""What transformers says a model's logits are, for a test to hold the draft model against.

usage: reference_logits.py --model FOLDER --ids 1,2,3 --out FILE
       reference_logits.py --tiny-llama FOLDER [--ids … --out FILE]

Writes a safetensors file with one float32 tensor, `logits` [positions, vocabulary]: row i is
computed from ids[..=i], in float32 whatever the folder's type. `--tiny-llama` first makes a small
Llama with random weights, always the same ones, in FOLDER; with --ids its logits are written too.

Run with the target environment's own Python: it needs torch and transformers.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM


def main() -> None:
    options = _parse()
    if options.tiny_llama:
        make_tiny_llama(options.tiny_llama)
    if options.ids:
        save_file({"logits": reference_logits(options.model or options.tiny_llama, options.ids)}, options.out)


def make_tiny_llama(folder: Path) -> None:
    """A Llama small enough to run in a unit test, with every feature that the big ones have:
    grouped-query attention and an output head of its own."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        # Ten times the usual spread, or the random model's distribution would be all but flat.
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).float().save_pretrained(folder)


@torch.inference_mode()
def reference_logits(folder: Path, ids: list[int]) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model(torch.tensor([ids])).logits[0].contiguous()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, metavar="FOLDER")
    parser.add_argument("--tiny-llama", type=Path, metavar="FOLDER")
    parser.add_argument("--ids", type=lambda text: [int(word) for word in text.split(",")], metavar="1,2,3")
    parser.add_argument("--out", type=Path, metavar="FILE")
    options = parser.parse_args()
    if not (options.model or options.tiny_llama):
        parser.error("one of --model and --tiny-llama is needed")
    if bool(options.ids) != bool(options.out) or (options.model and not options.ids):
        parser.error("--ids and --out go together")
    return options


if __name__ == "__main__":
    main()
