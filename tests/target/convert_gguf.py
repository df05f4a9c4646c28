"""Turns a GGUF model into an ordinary Hugging Face folder in bfloat16.

usage: convert_gguf.py MODEL.gguf FOLDER

Run with the environment's own Python: it needs torch and transformers.
"""

import os
import sys
from pathlib import Path

os.environ["TQDM_DISABLE"] = "1"  # read when transformers is imported

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig


def main() -> None:
    gguf, folder = Path(sys.argv[1]), Path(sys.argv[2])
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(
        **source, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)


if __name__ == "__main__":
    main()
