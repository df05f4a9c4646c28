"""Writes a copy of a Hugging Face model folder with slightly other weights: the next version of a policy."""

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for path in options.model.iterdir():
        if path.is_file() and path.suffix != ".safetensors":
            shutil.copy(path, options.out)
    generator = torch.Generator().manual_seed(1)
    for path in options.model.glob("*.safetensors"):
        weights = load_file(path)
        for name, weight in weights.items():
            if weight.ndim == 2 and "mlp" in name:
                noise = torch.randn(weight.shape, generator=generator)
                weights[name] = (weight.float() + 0.05 * weight.float().std() * noise).to(weight.dtype)
        save_file(weights, options.out / path.name, metadata={"format": "pt"})


if __name__ == "__main__":
    main()
