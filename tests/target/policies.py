"""Builds the benchmark's policies: three successive versions of one model, as training leaves them, and a draft for them.

What they are made from is no part of this repository. It lies beside it, in `../shared/models`, or in `models` of the
folder that SIDEDRAFT_BENCHMARK names; `build.py` there makes Hugging Face folders `policy-1`, `policy-2`, `policy-3` and
`draft` from the base model.
"""

from pathlib import Path

import layout
from layout import TargetError

# Their names stay as they are: a change of that file builds the environment anew.
from setup_target import _digest, _lock, _part, _run


def build_policies() -> Path:
    """The folder of the policies, built from the test target's model unless they are there already."""
    source = layout.BENCHMARK / "models"
    builder = source / "build.py"
    if not builder.is_file():
        raise TargetError(
            f"the benchmark's models are not at {source}: put them there, or name the folder that holds `models` "
            "with SIDEDRAFT_BENCHMARK"
        )
    made_from = sorted(path for path in source.rglob("*") if path.suffix in {".py", ".json", ".safetensors"})
    with open(layout.CACHE / "setup.lock", "w") as lock:
        _lock(lock)
        stamp = _digest(layout.MODEL / ".stamp", *made_from)
        _part("policies", layout.POLICIES, stamp, lambda out: _run(layout.PYTHON, builder, layout.MODEL, out))
    return layout.POLICIES
