"""What vLLM's own incremental detokenizer makes of token ids.

usage: reference_text.py FOLDER

Reads a JSON object a line, {"prompt_ids", "ids", "ended_by_token", "params"}, and answers each with a line {"text",
"stop"}. `params` are fields of SamplingParams; `ended_by_token` says that the last id ended the rollout. Run with the
target environment's own Python: it needs vLLM.
"""

import json
import sys
from types import SimpleNamespace

from transformers import AutoTokenizer
from vllm.sampling_params import SamplingParams
from vllm.v1.engine.detokenizer import FastIncrementalDetokenizer


def main() -> None:
    tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        print(json.dumps(text_of(tokenizer, **json.loads(line))), flush=True)


def text_of(tokenizer, prompt_ids: list[int], ids: list[int], ended_by_token: bool, params: dict) -> dict:
    # All that the detokenizer reads of a request.
    request = SimpleNamespace(
        request_id="reference", prompt_token_ids=prompt_ids, sampling_params=SamplingParams(**params)
    )
    detokenizer = FastIncrementalDetokenizer(tokenizer, request)
    stop = None
    for position, token in enumerate(ids):
        stop = detokenizer.update([token], ended_by_token and position == len(ids) - 1)
        if stop is not None:
            break
    return {"text": detokenizer.get_next_output_text(finished=True, delta=False), "stop": stop}


if __name__ == "__main__":
    main()
