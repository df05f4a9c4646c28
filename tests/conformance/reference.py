"""vLLM's own detokenizer, in a process of its own: it needs another Python, and minutes of imports only once."""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SCRIPT = Path(__file__).with_name("reference_text.py")
_PARAMS = ("stop", "include_stop_str_in_output", "skip_special_tokens", "spaces_between_special_tokens", "min_tokens")


class Reference:
    """Answers what text ids have."""

    def __init__(self, process: subprocess.Popen):
        self._process = process
        self._one_at_a_time = threading.Lock()

    def text(self, params: dict, prompt_ids: list[int], ids: list[int], ended_by_token: bool) -> str:
        """The text of a rollout under a request's parameters; `ended_by_token`: its last id ended it."""
        known = {name: params[name] for name in _PARAMS if params.get(name) is not None}
        question = {"prompt_ids": prompt_ids, "ids": ids, "ended_by_token": ended_by_token, "params": known}
        with self._one_at_a_time:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())["text"]


@contextmanager
def running(python: str, model: str) -> Iterator[Reference]:
    """The process, until the block ends."""
    process = subprocess.Popen(
        [python, str(SCRIPT), model],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR", "OMP_NUM_THREADS": "1"},
    )
    try:
        # Whatever a library prints while it is imported comes before.
        while (line := process.stdout.readline()) != '"ready"\n':
            if not line:
                raise RuntimeError(f"{SCRIPT.name} ended with {process.wait()}")
        yield Reference(process)
    finally:
        process.stdin.close()
        process.wait()
