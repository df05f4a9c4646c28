"""What vLLM's own classes make of random tokens, for a test to hold src/text against.

usage: vllm_text.py --model FOLDER --out FOLDER [--sequences N] [--seed N]

Writes the tokenizers (see small_tokenizers.py) and `cases.json` under --out: for each case the request and, token by
token, what `FastIncrementalDetokenizer` added and showed and what `LogprobsProcessor` named the candidates.

Run with the target environment's own Python: it needs vLLM, but no server.
"""

import argparse
import json
import os
import random
from pathlib import Path
from types import SimpleNamespace

os.environ |= {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}

import numpy as np
from random_ids import RandomIds
from small_tokenizers import make_all
from vllm.sampling_params import SamplingParams
from vllm.tokenizers.hf import CachedHfTokenizer
from vllm.v1.engine.detokenizer import FastIncrementalDetokenizer
from vllm.v1.engine.logprobs import LogprobsProcessor
from vllm.v1.outputs import LogprobsLists

# Candidates beside the sampled token at each position.
ALTERNATIVES = 2


def main() -> None:
    options = _parse()
    folders = {"model": options.model} | make_all(options.out)
    each = -(-options.sequences // len(folders))
    cases = []
    for name, folder in folders.items():
        tokenizer = CachedHfTokenizer.from_pretrained(folder)
        ids = RandomIds(tokenizer, random.Random(f"{options.seed} {name}"))
        cases += [{"folder": str(folder)} | answer(tokenizer, *question(tokenizer, ids)) for _ in range(each)]
    (options.out / "cases.json").write_text(json.dumps(cases))


def question(tokenizer, ids: RandomIds) -> tuple[dict, list[list[int]]]:
    """Random parameters and, for each position, the sampled token and its alternatives."""
    rng = ids.rng
    prompt, tokens = ids.sequence(1, 12), ids.sequence(1, 60)
    text = tokenizer.decode(tokens)
    stop = []
    for _ in range(rng.choice((0, 0, 1, 1, 2, 3)) if text else 0):
        at = rng.randrange(len(text))
        stop.append(text[at : at + rng.randint(1, 5)])
    if stop and rng.random() < 0.3:
        stop.append(rng.choice(("zzz", "é", "�", " ")))
    parameters = {
        "prompt": prompt,
        "skip_special_tokens": rng.random() < 0.5,
        "spaces_between_special_tokens": rng.random() < 0.5,
        "stop": stop,
        "include_stop_str_in_output": rng.random() < 0.5,
        "min_tokens": rng.choice((0, 0, 0, 1, 3, 10)),
    }
    return parameters, [[token, *ids.others(token, ALTERNATIVES)] for token in tokens]


def answer(tokenizer, parameters: dict, candidates: list[list[int]]) -> dict:
    """The case: parameters, and what vLLM does at each step until it stops."""
    given = {name: value for name, value in parameters.items() if name != "prompt"}
    sampling = SamplingParams(max_tokens=1000, logprobs=ALTERNATIVES, **given)
    request = SimpleNamespace(request_id="0", sampling_params=sampling, prompt_token_ids=parameters["prompt"])
    detokenizer = FastIncrementalDetokenizer(tokenizer, request)
    processor = LogprobsProcessor.from_new_request(tokenizer, request)
    added, decode_next = [], detokenizer.decode_next

    def decode_and_keep(token: int) -> str:
        added.append(decode_next(token))
        return added[-1]

    detokenizer.decode_next = decode_and_keep
    stream, resets = detokenizer.stream, 0
    steps, stopped = [], None
    for position, ids in enumerate(candidates):
        stopped = detokenizer.update(ids[:1], stop_terminated=False)
        processor.update_from_output(_output(ids))
        resets += detokenizer.stream is not stream
        stream = detokenizer.stream
        over = stopped is not None or position == len(candidates) - 1
        named = processor.logprobs[-1]
        steps.append(
            {
                "candidates": ids,
                "names": [named[id].decoded_token for id in ids],
                "added": added[-1],
                "shown": detokenizer.get_next_output_text(over, delta=True),
            }
        )
        if stopped is not None:
            break
    return parameters | {"steps": steps, "stopped": stopped, "text": detokenizer.output_text, "resets": resets}


def _output(ids: list[int]) -> SimpleNamespace:
    """What the engine reports for a position with these candidates, the sampled one first."""
    lists = LogprobsLists(np.array([ids]), np.full((1, len(ids)), -1.0), np.array([1]))
    return SimpleNamespace(new_logprobs=lists, new_prompt_logprobs_tensors=None, prompt_token_id_logprobs=None)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a model folder with a tokenizer")
    parser.add_argument("--out", type=Path, required=True, help="a folder for what is made")
    parser.add_argument("--sequences", type=int, default=600, help="cases, over all tokenizers")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
