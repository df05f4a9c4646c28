"""What transformers says a model's logits are, for a test to hold the draft model against.

usage: reference_logits.py --model FOLDER --ids 1,2,3 --out FILE

Writes a safetensors file with one float32 tensor, `logits` [positions, vocabulary]: row i is
computed from ids[..=i], in float32 whatever the folder's type.

Run with the target environment's own Python: it needs torch and transformers.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM


def main() -> None:
    options = _parse()
    save_file({"logits": reference_logits(options.model, options.ids)}, options.out)


@torch.inference_mode()
def reference_logits(folder: Path, ids: list[int]) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model(torch.tensor([ids])).logits[0].contiguous()


def _ids(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, metavar="FOLDER", required=True)
    parser.add_argument("--ids", type=_ids, metavar="1,2,3", required=True)
    parser.add_argument("--out", type=Path, metavar="FILE", required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
