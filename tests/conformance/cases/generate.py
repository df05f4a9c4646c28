"""Requests to `/inference/v1/generate`: every field of `GenerateRequest`, and of `SamplingParams` inside it."""

from case import GENERATE, OMIT, Case, merged

from cases.prompts import COMMA, CONTINUOUS, COUNTING_IDS, END, HI_IDS, LONG_IDS, MODEL, USAGE

DEFAULT = {"model": MODEL, "token_ids": COUNTING_IDS}
SAMPLING = {"temperature": 0, "max_tokens": 10}

# Fields beside the sampling parameters, and sampling parameters.
REQUESTS = {
    "plain": ({}, {}),
    "model absent": ({"model": OMIT}, {}),
    "model null": ({"model": None}, {}),
    "return_token_ids": ({"return_token_ids": True}, {}),
    "return_token_ids false": ({"return_token_ids": False}, {}),
    "output_mode tokens": ({"output_mode": "tokens"}, {"logprobs": 1}),
    "output_mode text": ({"output_mode": "text"}, {}),
    "output_mode text, logprobs": ({"output_mode": "text"}, {"logprobs": 2}),
    "output_mode text, stop string": ({"output_mode": "text"}, {"stop": ["e, s"]}),
    "priority 0": ({"priority": 0}, {}),
    "priority 1": ({"priority": 1}, {}),
    "token_offsets": ({"token_offsets": None}, {}),
    "features null": ({"features": None, "content_parts": None}, {}),
    "reasoning_ended": ({"reasoning_ended": True}, {}),
    "reasoning_parser_kwargs": ({"reasoning_parser_kwargs": {"chat_template_kwargs": {}}}, {}),
    "kv_transfer_params null": ({"kv_transfer_params": None, "ec_transfer_params": None}, {}),
    "unknown field": ({"no_such_field": 1}, {}),
    "unknown sampling field": ({}, {"no_such_field": 1}),
    "stream_options without stream": ({"stream_options": USAGE}, {}),
    "stream null": ({"stream": None}, {}),
    "streamed": ({"stream": True}, {}),
    "streamed with usage": ({"stream": True, "stream_options": USAGE}, {}),
    "streamed with continuous usage": ({"stream": True, "stream_options": CONTINUOUS}, {"logprobs": 1}),
    "streamed, token ids": ({"stream": True, "return_token_ids": True}, {"logprobs": 0}),
    "streamed, output_mode text": ({"stream": True, "output_mode": "text"}, {"logprobs": 1}),
    "streamed, n 2, top_k 1": ({"stream": True}, {"n": 2, "temperature": 1.0, "top_k": 1}),
    "streamed, n 2, top_k 1, a block cached": (
        {"stream": True, "stream_options": USAGE, "token_ids": HI_IDS}, {"n": 2, "temperature": 1.0, "top_k": 1},
    ),
    "n 2, top_k 1, a block cached": ({"token_ids": HI_IDS}, {"n": 2, "temperature": 1.0, "top_k": 1}),
    "streamed, stop token": ({"stream": True}, {"stop_token_ids": [COMMA]}),
    "streamed, stop string": ({"stream": True, "output_mode": "text"}, {"stop": ["e, s"]}),
    "streamed, prompt_logprobs": ({"stream": True}, {"prompt_logprobs": 1}),
    "streamed, one token": ({"stream": True, "stream_options": USAGE}, {"max_tokens": 1, "logprobs": 1}),
}  # fmt: skip

PARAMETERS = {
    "max_tokens 1": {"max_tokens": 1},
    "max_tokens 40": {"max_tokens": 40, "logprobs": 0},
    "min_tokens 1": {"min_tokens": 1},
    "logprobs 0": {"logprobs": 0},
    "logprobs 1": {"logprobs": 1},
    "logprobs 5": {"logprobs": 5},
    "logprobs 20": {"logprobs": 20, "max_tokens": 4},
    "logprobs -1": {"logprobs": -1, "max_tokens": 1},
    "logprobs null": {"logprobs": None},
    "logprob_token_ids": {"logprobs": 1, "logprob_token_ids": [28, 30]},
    "flat_logprobs": {"logprobs": 2, "flat_logprobs": True, "max_tokens": 4},
    "prompt_logprobs 0": {"prompt_logprobs": 0, "max_tokens": 1},
    "prompt_logprobs 2": {"prompt_logprobs": 2, "logprobs": 1, "max_tokens": 2},
    "prompt_logprobs null": {"prompt_logprobs": None},
    "prompt_logprob_token_ids": {"prompt_logprob_token_ids": [[1, 2]], "prompt_logprob_start": 0},
    "n 2, top_k 1": {"n": 2, "temperature": 1.0, "top_k": 1, "logprobs": 1},
    "n 1": {"n": 1},
    "stop string": {"stop": ["e, s"]},
    "stop string as text": {"stop": " seven"},
    "stop string included": {"stop": ["e, s"], "include_stop_str_in_output": True},
    "stop null": {"stop": None},
    "stop empty list": {"stop": []},
    "stop_token_ids": {"stop_token_ids": [COMMA], "logprobs": 1},
    "stop_token_ids null": {"stop_token_ids": None},
    "stop_token_ids empty": {"stop_token_ids": []},
    "detokenize false": {"detokenize": False},
    "detokenize false, logprobs": {"detokenize": False, "logprobs": 1},
    "skip_special_tokens false": {"skip_special_tokens": False},
    "spaces_between_special_tokens false": {"spaces_between_special_tokens": False},
    "skip_reading_prefix_cache": {"skip_reading_prefix_cache": True},
    "skip_reading_prefix_cache false": {"skip_reading_prefix_cache": False},
    "top_k, top_p and min_p at temperature 0": {"top_k": 5, "top_p": 0.5, "min_p": 0.2},
    "top_k -1": {"top_k": -1},
    "neutral values": {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0,
                       "frequency_penalty": 0.0},
    "seed": {"seed": 5},
    "seed at temperature 1": {"seed": 5, "temperature": 1.0},
    "output_kind 2": {"output_kind": 2},
    "output_kind 0": {"output_kind": 0},
    "skip_clone": {"skip_clone": True},
    "stream_interval": {"stream_interval": 2},
    "logit_bias": {"logit_bias": {"1876": -100}},
    "logit_bias beyond 100": {"logit_bias": {"1876": -1000000}},
    "allowed_token_ids": {"allowed_token_ids": [28, 1876, 2531]},
    "bad_words": {"bad_words": [" five"]},
    "repetition_penalty": {"repetition_penalty": 1.3},
    "presence_penalty": {"presence_penalty": 1.5},
    "frequency_penalty": {"frequency_penalty": 0.8},
    "watermarking": {"watermarking": False},
    "structured_outputs": {"structured_outputs": {"regex": "[0-9]{2}"}},
    "extra_args": {"extra_args": {"odd": 1}},
    "thinking_token_budget": {"thinking_token_budget": 4},
    "repetition_detection": {"repetition_detection": {"max_pattern_size": 4, "min_count": 3}},
    "routed_experts_prompt_start": {"routed_experts_prompt_start": 2},
    "trace_decode_token_ids": {"trace_decode_token_ids": [28, 28]},
    "output_text_buffer_length": {"output_text_buffer_length": 0},
}  # fmt: skip

# The prompt is a rendered chat, which comes to an end by itself.
ENDING = {
    "end of text": {"max_tokens": 40, "logprobs": 1},
    "no limit": {"max_tokens": OMIT},
    "max_tokens null": {"max_tokens": None},
    "ignore_eos": {"max_tokens": 30, "ignore_eos": True},
    "stop_token_ids is the end": {"max_tokens": 40, "stop_token_ids": [END]},
    "min_tokens": {"max_tokens": 34, "min_tokens": 28},
}

IDENTIFIED = {
    "request_id": ({"request_id": "mine"}, {}),
    "X-Request-Id": ({}, {"X-Request-Id": "from-the-header"}),
    "X-Request-Id beyond ASCII": ({}, {"X-Request-Id": "ä b/c"}),
    "X-Request-Id, streamed": ({"stream": True}, {"X-Request-Id": "from-the-header"}),
}


def _case(name: str, fields: dict, sampling: dict, **settings) -> Case:
    body = merged(DEFAULT, {"sampling_params": merged(SAMPLING, sampling), **fields})
    return Case(name, GENERATE, body, **settings)


CASES = [_case(name, *parts, group="requests") for name, parts in REQUESTS.items()]
CASES += [_case(name, {}, sampling, group="parameters") for name, sampling in PARAMETERS.items()]
CASES += [_case(name, {"token_ids": HI_IDS}, sampling, group="ending") for name, sampling in ENDING.items()]
CASES += [
    _case("max_tokens beyond the context", {"token_ids": LONG_IDS}, {"max_tokens": 100}),
    _case("no sampling parameter but the limit", {"sampling_params": {"max_tokens": 1, "temperature": 0}}, {}),
    _case("no cache_salt", {}, {}, salted=False),
    _case("cache_salt", {"cache_salt": "policy-1"}, {}, salted=False),
    _case("warm cache", {"token_ids": HI_IDS, "cache_salt": "warm-generate"}, {}, salted=False, warm=True),
]
CASES += [
    _case(name, fields, {}, headers=headers, same_ids=True) for name, (fields, headers) in IDENTIFIED.items()
]
