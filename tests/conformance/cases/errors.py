"""Requests that the server refuses, and routes that are not speculated."""

from case import CHAT, COMPLETIONS, GENERATE, OMIT, Case, merged

from cases import chat, completions, generate
from cases.prompts import COUNTING_IDS, HI, MODEL, TOOLS

OF_COMPLETIONS = {
    "unknown model": {"model": "no-such-model"},
    "model of a wrong type": {"model": 5},
    "prompt absent": {"prompt": OMIT},
    "prompt null": {"prompt": None},
    "prompt empty": {"prompt": ""},
    "prompt empty list": {"prompt": []},
    "prompt with an empty list": {"prompt": [COUNTING_IDS, []]},
    "prompt of a wrong type": {"prompt": {"text": "hi"}},
    "prompt with a fraction": {"prompt": [1.5, 2]},
    "prompt of text and ids": {"prompt": ["hi", 5]},
    "negative id": {"prompt": [5, -1]},
    "id out of vocabulary": {"prompt": [5, 999999]},
    "last id out of vocabulary by one": {"prompt": [5, 49152]},
    "prompt too long": {"prompt": [5] * 4097},
    "prompt that fills the context": {"prompt": [5] * 4096},
    "max_tokens 0": {"max_tokens": 0},
    "max_tokens negative": {"max_tokens": -1},
    "max_tokens over the context": {"max_tokens": 100000},
    "max_tokens as text": {"max_tokens": "many"},
    "max_tokens a fraction": {"max_tokens": 1.5},
    "n 0": {"n": 0},
    "n negative": {"n": -1},
    "n null": {"n": None},
    "n 2 when greedy": {"n": 2},
    "temperature negative": {"temperature": -1},
    "temperature 3": {"temperature": 3},
    "temperature as text": {"temperature": "hot"},
    "top_p 0": {"temperature": 1, "top_p": 0},
    "top_p over 1": {"temperature": 1, "top_p": 1.5},
    "top_k under -1": {"temperature": 1, "top_k": -2},
    "min_p over 1": {"temperature": 1, "min_p": 2},
    "repetition_penalty 0": {"repetition_penalty": 0},
    "presence_penalty 3": {"presence_penalty": 3},
    "frequency_penalty -3": {"frequency_penalty": -3},
    "seed too large": {"seed": 2**63},
    "logprobs negative": {"logprobs": -2},
    "logprobs over the maximum": {"logprobs": 49153},
    "logprobs as text": {"logprobs": "5"},
    "prompt_logprobs negative": {"prompt_logprobs": -2},
    "prompt_logprobs streamed": {"prompt_logprobs": 1, "stream": True},
    "logprob_token_ids without logprobs": {"logprob_token_ids": [1]},
    "stop empty string": {"stop": ""},
    "stop with an empty string": {"stop": ["a", ""]},
    "stop of a wrong type": {"stop": 5},
    "stop_token_ids of a wrong type": {"stop_token_ids": ["a"]},
    "stream_options without stream": {"stream_options": {"include_usage": True}},
    "stream_options of a wrong type": {"stream": True, "stream_options": 5},
    "stream as a word": {"stream": "maybe"},
    "min_tokens over max_tokens": {"min_tokens": 13},
    "min_tokens negative": {"min_tokens": -1},
    "allowed_token_ids empty": {"allowed_token_ids": []},
    "allowed_token_ids out of vocabulary": {"allowed_token_ids": [999999]},
    "logit_bias with a word": {"logit_bias": {"hello": 1}},
    "logit_bias out of vocabulary": {"logit_bias": {"999999": 1}},
    "logit_bias as a list": {"logit_bias": [1]},
    "bad_words with an empty string": {"bad_words": [""]},
    "cache_salt empty": {"cache_salt": ""},
    "cache_salt too long": {"cache_salt": "x" * 1025},
    "cache_salt of a wrong type": {"cache_salt": 5},
    "truncate_prompt_tokens over the context": {"truncate_prompt_tokens": 5000},
    "truncate_prompt_tokens -2": {"truncate_prompt_tokens": -2},
    "suffix": {"suffix": "end"},
    "prompt_embeds": {"prompt_embeds": "AAAA"},
    "response_format unknown": {"response_format": {"type": "poem"}},
    "structured_outputs of two kinds": {"structured_outputs": {"regex": "a", "choice": ["b"]}},
    "return_token_ids of a wrong type": {"return_token_ids": "maybe"},
}

OF_CHAT = {
    "unknown model": {"model": "no-such-model"},
    "messages absent": {"messages": OMIT},
    "messages empty": {"messages": []},
    "messages of a wrong type": {"messages": "hi"},
    "message without a role": {"messages": [{"content": "hi"}]},
    "message with an unknown part": {"messages": [{"role": "user", "content": [{"type": "smell"}]}]},
    "message with an image": {
        "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
    },
    "messages too long": {"messages": [{"role": "user", "content": "one " * 4100}]},
    "max_tokens 0": {"max_tokens": 0},
    "max_tokens negative": {"max_tokens": -1},
    "n 0": {"n": 0},
    "n 2 when greedy": {"n": 2},
    "temperature 3": {"temperature": 3},
    "top_logprobs without logprobs": {"top_logprobs": 2},
    "top_logprobs negative": {"logprobs": True, "top_logprobs": -2},
    "logprobs as a number": {"logprobs": 5},
    "stream_options without stream": {"stream_options": {"include_usage": True}},
    "stop empty string": {"stop": ""},
    "tools empty": {"tools": []},
    "tool_choice without tools": {"tool_choice": "auto"},
    "tool_choice unknown": {"tools": TOOLS, "tool_choice": "sometimes"},
    "tool_choice of another tool": {
        "tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "get_time"}},
    },
    "chat_template that fails": {"chat_template": "{{ raise_exception('no') }}"},
    "chat_template that is broken": {"chat_template": "{% for %}"},
    "continue_final_message with add_generation_prompt": {
        "continue_final_message": True, "add_generation_prompt": True,
    },
    "continue_final_message without an answer": {"continue_final_message": True, "add_generation_prompt": False},
    "reasoning_effort unknown": {"reasoning_effort": "heroic"},
    "response_format without a schema": {"response_format": {"type": "json_schema"}},
    "prompt_logprobs streamed": {"prompt_logprobs": 1, "stream": True},
    "cache_salt empty": {"cache_salt": ""},
}  # fmt: skip

OF_GENERATE = {
    "unknown model": ({"model": "no-such-model"}, {}),
    "token_ids absent": ({"token_ids": OMIT}, {}),
    "token_ids empty": ({"token_ids": []}, {}),
    "token_ids as text": ({"token_ids": "hi"}, {}),
    "negative id": ({"token_ids": [5, -1]}, {}),
    "id out of vocabulary": ({"token_ids": [5, 999999]}, {}),
    "prompt too long": ({"token_ids": [5] * 4097}, {}),
    "prompt that fills the context": ({"token_ids": [5] * 4096}, {}),
    "sampling_params absent": ({"sampling_params": OMIT}, {}),
    "sampling_params null": ({"sampling_params": None}, {}),
    "output_mode unknown": ({"output_mode": "song"}, {}),
    "output_mode text without detokenize": ({"output_mode": "text"}, {"detokenize": False}),
    "cache_salt empty": ({"cache_salt": ""}, {}),
    "stream as a word": ({"stream": "maybe"}, {}),
    "max_tokens 0": ({}, {"max_tokens": 0}),
    "max_tokens as text": ({}, {"max_tokens": "many"}),
    "n 0": ({}, {"n": 0}),
    "n 2 when greedy": ({}, {"n": 2}),
    "temperature negative": ({}, {"temperature": -1}),
    "temperature 3": ({}, {"temperature": 3}),
    "top_p 0": ({}, {"temperature": 1, "top_p": 0}),
    "logprobs over the maximum": ({}, {"logprobs": 49153}),
    "prompt_logprobs over the maximum": ({}, {"prompt_logprobs": 49153}),
    "stop empty string": ({}, {"stop": [""]}),
    "stop without detokenize": ({}, {"stop": ["a"], "detokenize": False}),
    "allowed_token_ids out of vocabulary": ({}, {"allowed_token_ids": [999999]}),
    "output_kind unknown": ({}, {"output_kind": 9}),
}

_JSON = {"Content-Type": "application/json"}

# Bytes rather than JSON: name, headers, body.
BYTES = {
    "broken JSON": ({}, b'{"model": "smol", '),
    "nothing": ({}, b""),
    "not UTF-8": ({}, b'{"model": "\xff\xfe"}'),
    "JSON null": ({}, b"null"),
    "JSON list": ({}, b"[1, 2]"),
    "JSON text": ({}, b'"hello"'),
    "NaN": ({}, b'{"model": "smol", "prompt": "a", "max_tokens": 1, "temperature": NaN}'),
    "byte order mark": ({}, b'\xef\xbb\xbf{"model": "smol", "prompt": "a", "max_tokens": 1, "temperature": 0}'),
    "trailing text": ({}, b'{"model": "smol", "prompt": "a", "max_tokens": 1, "temperature": 0} more'),
    "a key twice": ({}, b'{"model": "smol", "prompt": "a", "max_tokens": 3, "temperature": 0, "max_tokens": 1}'),
    "lone surrogate": ({}, b'{"model": "smol", "prompt": "a\\ud800", "max_tokens": 1, "temperature": 0}'),
    "text as content type": ({"Content-Type": "text/plain"}, b'{"model": "smol", "prompt": "a"}'),
    "form as content type": ({"Content-Type": "application/x-www-form-urlencoded"}, b"model=smol"),
    "content type with a charset": (
        {"Content-Type": "application/json; charset=utf-8"},
        b'{"model": "smol", "prompt": "Count: one, two,", "max_tokens": 2, "temperature": 0}',
    ),
}

# Routes and methods: name, method, path, body.
ROUTES = {
    "GET completions": ("GET", COMPLETIONS, None),
    "GET chat": ("GET", CHAT, None),
    "GET generate": ("GET", GENERATE, None),
    "PUT completions": ("PUT", COMPLETIONS, {"model": MODEL, "prompt": "a"}),
    "DELETE chat": ("DELETE", CHAT, None),
    "unknown route": ("POST", "/v1/no/such/route", {}),
    "root": ("GET", "/", None),
    "completions with a slash": ("POST", "/v1/completions/", completions.DEFAULT),
    "completions with a query": ("POST", "/v1/completions?a=b", completions.DEFAULT),
    "version": ("GET", "/version", None),
    "tokenize": ("POST", "/tokenize", {"model": MODEL, "prompt": "hello"}),
    "tokenize messages": ("POST", "/tokenize", {"model": MODEL, "messages": HI}),
    "detokenize": ("POST", "/detokenize", {"model": MODEL, "tokens": COUNTING_IDS}),
    "render": ("POST", "/v1/completions/render", {**completions.DEFAULT, "request_id": "mine"}),
    "render chat": ("POST", "/v1/chat/completions/render", {**chat.DEFAULT, "request_id": "mine"}),
    "embeddings": ("POST", "/v1/embeddings", {"model": MODEL, "input": "a"}),
    "tokens route of older trainers": ("POST", "/v1/chat/completions/tokens", {"model": MODEL, "messages": HI}),
    "is_paused": ("GET", "/is_paused", None),
    "weight_info": ("GET", "/weight_info", None),
    "pause in a mode that does not exist": ("POST", "/pause?mode=no", {}),
    "resume": ("POST", "/resume", {}),
    "abort of nobody": ("POST", "/abort_requests", {"request_ids": ["nobody"]}),
    "abort of no JSON object": ("POST", "/abort_requests", []),
    "update_weight_version": ("POST", "/update_weight_version", {"new_version": "default"}),
    "update_weight_version without one": ("POST", "/update_weight_version", {}),
    "reset_prefix_cache": ("POST", "/reset_prefix_cache", {}),
}


def _named(path: str, default: dict, groups: dict) -> list[Case]:
    return [Case(f"error: {name}", path, merged(default, fields), salted=False) for name, fields in groups.items()]


CASES = _named(COMPLETIONS, completions.DEFAULT, OF_COMPLETIONS)
CASES += _named(CHAT, chat.DEFAULT, OF_CHAT)
CASES += _named(
    GENERATE,
    generate.DEFAULT,
    {
        name: {"sampling_params": merged(generate.SAMPLING, sampling), **fields}
        for name, (fields, sampling) in OF_GENERATE.items()
    },
)
CASES += [
    Case(f"bytes: {name}", path, headers={**_JSON, **headers}, raw=raw)
    for path in (COMPLETIONS, CHAT, GENERATE)
    for name, (headers, raw) in BYTES.items()
]
CASES += [
    Case(f"route: {name}", path, body, method=method, salted=False) for name, (method, path, body) in ROUTES.items()
]
