"""Writes small models, and what transformers computes of them, for a test to hold the draft model against.

usage: model_logits.py --out FOLDER [--gguf KIND:TYPE,KIND:TYPE,…]

Without --gguf the models are Hugging Face folders under FOLDER, with it GGUF files KIND-TYPE.gguf. Beside each lies
NAME.safetensors: for each context i, `ids.i` [n] and `logits.i` [n, vocabulary], whose row p is computed from the first
p + 1 ids, in float32 whatever the type of the weights.

Run with the target environment's own Python: it needs torch, transformers and gguf.
"""

import argparse
import os
from pathlib import Path

os.environ["TQDM_DISABLE"] = "1"  # read when transformers is imported

import torch
from gguf_files import write
from safetensors.torch import save_file
from small_models import MODELS, SIZES, save_all
from transformers import AutoModelForCausalLM, PreTrainedModel

CONTEXT_LENGTHS = (1, 24, 160)


def main() -> None:
    options = _parse()
    if not options.gguf:
        for folder in save_all(options.out):
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
            save_file(reference(model), options.out / f"{folder.name}.safetensors")
    for kind, type_name in options.gguf:
        model = MODELS[kind]().float()
        name = f"{kind}-{type_name}"
        write(model, kind, type_name, options.out / f"{name}.gguf")
        save_file(reference(model), options.out / f"{name}.safetensors")


@torch.inference_mode()
def reference(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    model.eval().set_attn_implementation("eager")
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for index, length in enumerate(CONTEXT_LENGTHS):
        ids = torch.randint(SIZES["vocab_size"], (length,), generator=generator)
        tensors[f"ids.{index}"] = ids.int()
        tensors[f"logits.{index}"] = model(ids[None]).logits[0].contiguous()
    return tensors


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a folder for what is made")
    parser.add_argument("--gguf", type=_files, default=[], metavar="KIND:TYPE,…")
    return parser.parse_args()


def _files(text: str) -> list[tuple[str, str]]:
    return [tuple(word.split(":")) for word in text.split(",")]


if __name__ == "__main__":
    main()
