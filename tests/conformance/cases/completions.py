"""Requests to `/v1/completions`: every field of the server's `CompletionRequest` at least once."""

from case import COMPLETIONS, OMIT, Case, merged

from cases.prompts import (
    CODE, COMMA, CONTINUOUS, COUNTING, COUNTING_IDS, EMOJI, END, FRANCE, FRANCE_IDS, HI_IDS, JAPANESE, LONG_IDS,
    MODEL, RUSSIAN, USAGE,
)  # fmt: skip

DEFAULT = {"model": MODEL, "prompt": COUNTING, "max_tokens": 12, "temperature": 0}

PROMPTS = {
    "text prompt": {"prompt": FRANCE},
    "id prompt": {"prompt": FRANCE_IDS},
    "one text in a list": {"prompt": [COUNTING]},
    "several texts": {"prompt": [FRANCE, COUNTING, CODE]},
    "several id lists of a block each": {"prompt": [HI_IDS, COUNTING_IDS * 5]},
    "several id lists": {"prompt": [FRANCE_IDS, COUNTING_IDS], "return_token_ids": True, "logprobs": 1},
    "emoji prompt": {"prompt": EMOJI, "max_tokens": 16, "return_token_ids": True},
    "cyrillic prompt": {"prompt": RUSSIAN, "max_tokens": 16, "logprobs": 2},
    "japanese prompt": {"prompt": JAPANESE, "max_tokens": 16, "logprobs": 3},
    "text with a special token": {"prompt": "<|im_start|>user\nHi<|im_end|>\n", "return_token_ids": True},
    "add_special_tokens false": {"add_special_tokens": False},
    "model absent": {"model": OMIT},
    "model null": {"model": None},
    "truncate_prompt_tokens": {"prompt": COUNTING_IDS, "truncate_prompt_tokens": 4, "return_token_ids": True},
    "truncate_prompt_tokens -1": {"truncate_prompt_tokens": -1},
    "truncation_side right": {"truncate_prompt_tokens": 4, "truncation_side": "right", "return_token_ids": True},
}

LENGTHS = {
    "max_tokens 1": {"max_tokens": 1},
    "max_tokens absent": {"max_tokens": OMIT},
    "max_tokens null": {"max_tokens": None},
    "max_tokens 40": {"max_tokens": 40, "return_token_ids": True, "logprobs": 0},
    "max_tokens beyond the context": {"prompt": LONG_IDS, "max_tokens": 100, "return_token_ids": True},
    "min_tokens": {"prompt": HI_IDS, "min_tokens": 30, "max_tokens": 36},
    "min_tokens 1": {"min_tokens": 1},
    "min_tokens equal to max_tokens": {"min_tokens": 12},
    "end of text": {"prompt": HI_IDS, "max_tokens": 40, "return_token_ids": True, "logprobs": 1},
    "ignore_eos": {"prompt": HI_IDS, "max_tokens": 30, "ignore_eos": True, "return_token_ids": True},
}

LOGPROBS = {
    "logprobs 0": {"logprobs": 0},
    "logprobs 1": {"logprobs": 1},
    "logprobs 5": {"logprobs": 5},
    "logprobs 20": {"logprobs": 20, "max_tokens": 6},
    "logprobs of partial characters": {"prompt": EMOJI, "logprobs": 3, "max_tokens": 14},
    "logprobs -1": {"logprobs": -1, "max_tokens": 1},
    "logprob_token_ids": {"logprobs": 1, "logprob_token_ids": [28, 30, 1876]},
    "return_tokens_as_token_ids": {"logprobs": 2, "return_tokens_as_token_ids": True},
    "return_tokens_as_token_ids false": {"logprobs": 2, "return_tokens_as_token_ids": False},
    "return_token_ids": {"return_token_ids": True},
    "return_token_ids false": {"return_token_ids": False},
    "return_token_offsets": {"return_token_offsets": True},
    "prompt_logprobs 0": {"prompt_logprobs": 0, "max_tokens": 2},
    "prompt_logprobs 3": {"prompt_logprobs": 3, "logprobs": 3, "max_tokens": 3},
    "echo": {"echo": True},
    "echo with logprobs": {"echo": True, "logprobs": 2},
    "echo without new tokens": {"echo": True, "max_tokens": 0, "logprobs": 1},
    "echo streamed": {"echo": True, "stream": True},
    "echo without new tokens, streamed": {"echo": True, "max_tokens": 0, "stream": True},
}

STOPS = {
    "stop string": {"stop": " seven"},
    "stop string in a list": {"stop": ["seven"]},
    "stop across tokens": {"stop": ["e, s"], "logprobs": 1, "return_token_ids": True},
    "several stop strings": {"stop": ["nine", "x, se", "eight"], "max_tokens": 20},
    "stop not met": {"stop": ["zebra"]},
    "stop at the first token": {"stop": [" four"]},
    "stop inside a token": {"stop": ["eve"], "max_tokens": 20},
    "stop with a character of several bytes": {"prompt": EMOJI, "stop": ["🎊"], "max_tokens": 14},
    "stop cyrillic": {"prompt": RUSSIAN, "stop": ["! П"], "max_tokens": 16, "return_token_ids": True},
    "include_stop_str_in_output": {"stop": ["e, s"], "include_stop_str_in_output": True},
    "include_stop_str_in_output, end of text": {
        "prompt": HI_IDS, "max_tokens": 40, "include_stop_str_in_output": True, "skip_special_tokens": False,
    },
    "stop null": {"stop": None},
    "stop with min_tokens": {"stop": [","], "min_tokens": 5},
    "stop_token_ids": {"stop_token_ids": [COMMA], "return_token_ids": True, "logprobs": 0},
    "stop_token_ids included": {"stop_token_ids": [COMMA], "include_stop_str_in_output": True},
    "stop_token_ids is the end": {"prompt": HI_IDS, "max_tokens": 40, "stop_token_ids": [END], "ignore_eos": True},
    "stop_token_ids null": {"stop_token_ids": None},
    "stop_token_ids and min_tokens": {"stop_token_ids": [COMMA], "min_tokens": 4},
}  # fmt: skip

SAMPLING = {
    "temperature 0.0": {"temperature": 0.0},
    "temperature almost 0": {"temperature": 1e-6},
    "top_k 1 at temperature 1": {"temperature": 1.0, "top_k": 1},
    "n 2, top_k 1": {"temperature": 1.0, "top_k": 1, "n": 2, "return_token_ids": True, "logprobs": 1},
    "n 3 of two prompts, top_k 1": {"temperature": 1.0, "top_k": 1, "n": 3, "prompt": [FRANCE, COUNTING]},
    "n 2, top_k 1, a block cached": {"temperature": 1.0, "top_k": 1, "n": 2, "prompt": HI_IDS},
    "n 1": {"n": 1},
    "tiny top_p at temperature 1": {"temperature": 1.0, "top_p": 1e-6},
    "min_p 1 at temperature 1": {"temperature": 1.0, "min_p": 1.0},
    "top_k, top_p and min_p at temperature 0": {"top_k": 5, "top_p": 0.5, "min_p": 0.2},
    "top_k -1": {"top_k": -1},
    "top_k over the vocabulary": {"top_k": 100000000},
    "neutral values": {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0,
                       "frequency_penalty": 0.0, "length_penalty": 1.0},
    "nulls": {"top_p": None, "top_k": None, "min_p": None, "repetition_penalty": None, "seed": None, "stream": None,
              "logit_bias": None, "logprobs": None, "stream_options": None, "user": None, "suffix": None},
    "seed": {"seed": 7},
    "seed -1": {"seed": -1},
    "seed at temperature 1": {"seed": 7, "temperature": 1.0, "return_token_ids": True},
    "logit_bias": {"logit_bias": {"1876": -100, "2531": 5.5}},
    "logit_bias empty": {"logit_bias": {}},
    "logit_bias to one token": {"logit_bias": {"28": 100}, "max_tokens": 4},
    "allowed_token_ids": {"allowed_token_ids": [28, 1876, 2531, 2976, 30]},
    "bad_words": {"bad_words": ["five", " six"]},
    "bad_words empty": {"bad_words": []},
    "repetition_penalty": {"repetition_penalty": 1.3},
    "presence_penalty": {"presence_penalty": 1.5},
    "frequency_penalty": {"frequency_penalty": 0.8},
    "length_penalty": {"length_penalty": 2.0},
    "watermarking": {"watermarking": False},
    "use_beam_search false": {"use_beam_search": False},
    "beam search": {"use_beam_search": True, "n": 2, "max_tokens": 4},
    "repetition_detection": {"repetition_detection": {"max_pattern_size": 4, "min_count": 3}, "max_tokens": 20},
    "thinking_token_budget": {"thinking_token_budget": 10},
}  # fmt: skip

TEXT = {
    "skip_special_tokens false": {"prompt": HI_IDS, "max_tokens": 40, "skip_special_tokens": False},
    "skip_special_tokens false, ignore_eos": {
        "prompt": HI_IDS, "max_tokens": 30, "skip_special_tokens": False, "ignore_eos": True, "stream": True,
    },
    "spaces_between_special_tokens false": {
        "prompt": HI_IDS, "max_tokens": 30, "skip_special_tokens": False, "spaces_between_special_tokens": False,
        "ignore_eos": True,
    },
    "spaces_between_special_tokens false, special skipped": {"spaces_between_special_tokens": False},
    "response_format text": {"response_format": {"type": "text"}},
    "response_format json_object": {"response_format": {"type": "json_object"}, "max_tokens": 16},
    "structured_outputs choice": {"prompt": FRANCE, "structured_outputs": {"choice": [" Paris", " Lyon"]}},
    "structured_outputs regex, streamed": {"structured_outputs": {"regex": "[0-9]{3}"}, "stream": True},
}  # fmt: skip

STREAMS = {
    "streamed": {"stream": True},
    "streamed with usage": {"stream": True, "stream_options": USAGE},
    "streamed with continuous usage": {"stream": True, "stream_options": CONTINUOUS},
    "streamed, usage refused": {"stream": True, "stream_options": {"include_usage": False}},
    "streamed, continuous without usage": {"stream": True, "stream_options": {"continuous_usage_stats": True}},
    "streamed, empty stream_options": {"stream": True, "stream_options": {}},
    "streamed, stream_options null": {"stream": True, "stream_options": None},
    "streamed, unknown stream option": {"stream": True, "stream_options": {"include_usage": True, "odd": 1}},
    "streamed, token ids": {"stream": True, "return_token_ids": True},
    "streamed, logprobs": {"stream": True, "logprobs": 3},
    "streamed, logprobs 0 and ids": {"stream": True, "logprobs": 0, "return_token_ids": True, "stream_options": USAGE},
    "streamed, tokens as ids": {"stream": True, "logprobs": 1, "return_tokens_as_token_ids": True},
    "streamed, several prompts": {"stream": True, "prompt": [FRANCE_IDS, COUNTING_IDS], "stream_options": CONTINUOUS,
                                  "return_token_ids": True},
    "streamed, n 2, top_k 1": {"stream": True, "n": 2, "temperature": 1.0, "top_k": 1, "stream_options": USAGE},
    "streamed, n 2, top_k 1, a block cached": {"stream": True, "n": 2, "temperature": 1.0, "top_k": 1, "prompt": HI_IDS,
                                               "stream_options": USAGE},
    "streamed, two prompts of a block each": {"stream": True, "prompt": [HI_IDS, COUNTING_IDS * 5],
                                              "stream_options": USAGE},
    "streamed, emoji": {"stream": True, "prompt": EMOJI, "max_tokens": 17, "return_token_ids": True, "logprobs": 1},
    "streamed, stop string": {"stream": True, "stop": ["e, s"], "return_token_ids": True, "logprobs": 1},
    "streamed, stop included": {"stream": True, "stop": ["e, s"], "include_stop_str_in_output": True},
    "streamed, long stop string": {"stream": True, "stop": ["six, seven, eight"], "return_token_ids": True},
    "streamed, end of text": {"stream": True, "prompt": HI_IDS, "max_tokens": 40, "return_token_ids": True},
    "streamed, stop token": {"stream": True, "stop_token_ids": [COMMA], "stream_options": USAGE},
    "streamed, one token": {"stream": True, "max_tokens": 1, "logprobs": 2, "stream_options": USAGE},
    "streamed, stream_interval": {"stream": True, "stream_interval": 4},
    "streamed, prompt_logprobs 0": {"stream": True, "prompt_logprobs": 0},
}  # fmt: skip

OTHERS = {
    "user": {"user": "someone"},
    "priority 0": {"priority": 0},
    "priority 1": {"priority": 1},
    "session_id": {"session_id": "session-1"},
    "unknown field": {"no_such_field": {"a": [1, 2]}},
    "unknown field null": {"no_such_field": None},
    "suffix null": {"suffix": None},
    "kv_transfer_params null": {"kv_transfer_params": None, "ec_transfer_params": None},
    "vllm_xargs": {"vllm_xargs": {"odd": 1}},
    "routed_experts_prompt_start": {"routed_experts_prompt_start": 2},
    "mm_payload": {"mm_payload": "none"},
    "return_mm_kwargs": {"return_mm_kwargs": False},
    "prompt_embeds null": {"prompt_embeds": None},
}

# No salt of their own, since they are about it, or about its absence.
UNSALTED = {
    "no cache_salt": {},
    "cache_salt": {"cache_salt": "policy-1"},
    "cache_salt null": {"cache_salt": None},
}

IDENTIFIED = {
    "request_id": ({"request_id": "mine"}, {}),
    "X-Request-Id": ({}, {"X-Request-Id": "from-the-header"}),
    "X-Request-Id before request_id": ({"request_id": "mine"}, {"X-Request-Id": "from-the-header"}),
    "X-Request-Id beyond ASCII": ({}, {"X-Request-Id": "ä b/c"}),
    "X-Request-Id, streamed": ({"stream": True}, {"X-Request-Id": "from-the-header"}),
}

# Sent once before: how much of the prompt was cached shows in the usage.
WARM = {
    "warm cache": {"prompt": HI_IDS, "cache_salt": "warm-completions"},
    "warm cache, streamed": {
        "prompt": HI_IDS, "cache_salt": "warm-completions", "stream": True, "stream_options": USAGE,
    },
}  # fmt: skip

_GROUPS = {
    "prompts": PROMPTS,
    "lengths": LENGTHS,
    "logprobs": LOGPROBS,
    "stops": STOPS,
    "sampling": SAMPLING,
    "text": TEXT,
    "streams": STREAMS,
    "others": OTHERS,
}


def _case(name: str, fields: dict, **settings) -> Case:
    return Case(name, COMPLETIONS, merged(DEFAULT, fields), **settings)


CASES = [_case(name, fields, group=group) for group, of in _GROUPS.items() for name, fields in of.items()]
CASES += [_case(name, fields, salted=False) for name, fields in UNSALTED.items()]
CASES += [_case(name, fields, headers=headers, same_ids=True) for name, (fields, headers) in IDENTIFIED.items()]
CASES += [_case(name, fields, salted=False, warm=True) for name, fields in WARM.items()]
