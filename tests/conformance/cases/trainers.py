"""Requests as reinforcement-learning trainers and their clients send them, at temperature 0.

Read in the sources of openai-python, TRL (asynchronous GRPO), AReaL, SkyRL, prime-rl with verifiers and renderers, and
NeMo-Gym: the same fields, in the same order, with the same headers.
"""

from case import CHAT, COMPLETIONS, GENERATE, Case

from cases.prompts import COUNTING_IDS, END, HI, HI_IDS, MODEL, TOOLS

_OPENAI = {
    "Accept": "application/json",
    "Authorization": "Bearer EMPTY",
    "User-Agent": "AsyncOpenAI/Python 3.54.0",
    "X-Stainless-Lang": "python",
    "X-Stainless-Async": "async:asyncio",
    "x-stainless-retry-count": "0",
    "x-stainless-read-timeout": "600",
}
_SESSION = {"X-Session-ID": "trajectory-17"}

TRL = {
    "TRL, one turn": {
        "model": MODEL, "prompt": COUNTING_IDS, "max_tokens": 16, "temperature": 0.0, "n": 1,
        "return_token_ids": True, "logprobs": 0,
    },
}  # fmt: skip

AREAL = {
    "AReaL, greedy": {
        "top_p": 1.0, "top_k": 100000000, "max_tokens": 16, "temperature": 0.0, "stop_token_ids": [],
        "ignore_eos": False, "skip_special_tokens": True, "return_tokens_as_token_ids": True, "logprobs": 0,
        "use_beam_search": False, "stream": False, "prompt": COUNTING_IDS,
    },
    "AReaL, stop tokens": {
        "top_p": 1.0, "top_k": 100000000, "max_tokens": 40, "temperature": 0.0, "stop_token_ids": [END, 0],
        "ignore_eos": False, "skip_special_tokens": False, "return_tokens_as_token_ids": True, "logprobs": 0,
        "use_beam_search": False, "stream": False, "prompt": HI_IDS,
    },
}  # fmt: skip

AREAL_CHAT = {
    "AReaL, messages": {
        "top_p": 1.0, "top_k": 100000000, "max_tokens": 16, "temperature": 0.0, "stop_token_ids": [],
        "ignore_eos": False, "skip_special_tokens": True, "return_tokens_as_token_ids": True, "logprobs": True,
        "use_beam_search": False, "stream": False, "messages": HI,
    },
}  # fmt: skip

_SKYRL = {
    "min_tokens": 1, "skip_special_tokens": True, "include_stop_str_in_output": True, "max_tokens": 40,
    "temperature": 0.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0, "logprobs": 1,
}  # fmt: skip

SKYRL = {
    "SkyRL, no stop": {"sampling_params": {**_SKYRL, "stop": None}, "model": MODEL, "token_ids": HI_IDS},
    "SkyRL, stop string": {
        "sampling_params": {**_SKYRL, "stop": ["seven", "</answer>"]}, "model": MODEL, "token_ids": COUNTING_IDS,
    },
    "SkyRL, logprobs null": {
        "sampling_params": {**_SKYRL, "logprobs": None, "stop": None, "repetition_penalty": 1.0, "seed": None},
        "model": MODEL, "token_ids": COUNTING_IDS,
    },
    "SkyRL, sample": {
        "sampling_params": {"n": 1, "logprobs": 0, "output_kind": 2, "prompt_logprobs": None, "temperature": 0.0,
                            "max_tokens": 16, "top_k": -1, "top_p": 1.0},
        "model": MODEL, "token_ids": COUNTING_IDS,
    },
    "SkyRL, sample with prompt scores": {
        "sampling_params": {"n": 1, "logprobs": 0, "output_kind": 2, "prompt_logprobs": 2, "temperature": 0.0,
                            "max_tokens": 4, "stop": ["\n"], "stop_token_ids": [END]},
        "model": MODEL, "token_ids": COUNTING_IDS,
    },
}  # fmt: skip

PRIME = {
    "prime-rl, a turn": {
        "model": MODEL, "token_ids": HI_IDS,
        "sampling_params": {"top_k": -1, "min_p": 0.0, "return_token_ids": True, "cache_salt": "3",
                            "temperature": 0.0, "top_p": 1.0, "max_tokens": 40, "stop_token_ids": [END],
                            "logprobs": 1, "skip_special_tokens": False},
    },
    "prime-rl, a later turn": {
        "model": MODEL, "token_ids": HI_IDS,
        "sampling_params": {"top_k": -1, "min_p": 0.0, "return_token_ids": True, "temperature": 0.0, "max_tokens": 40,
                            "routed_experts_prompt_start": 20, "stop_token_ids": [END, 0], "logprobs": 1,
                            "skip_special_tokens": False},
    },
    "prime-rl, scoring": {
        "model": MODEL, "token_ids": [*HI_IDS, 19556, 665],
        "sampling_params": {"max_tokens": 1, "temperature": 0.0, "top_p": 1.0, "prompt_logprobs": 1},
    },
    "verifiers, priority and reasoning_effort": {
        "model": MODEL, "token_ids": HI_IDS,
        "sampling_params": {"temperature": 0.0, "max_tokens": 8, "reasoning_effort": "low", "stop_token_ids": [END],
                            "logprobs": 1, "skip_special_tokens": False},
        "priority": 0,
    },
}  # fmt: skip

_GYM = {
    "messages": HI, "model": MODEL, "parallel_tool_calls": True, "temperature": 0.0, "top_p": 1.0,
    "max_completion_tokens": 40, "metadata": {"sample": "1"}, "logprobs": True, "top_logprobs": 0,
    "return_tokens_as_token_ids": True, "return_token_ids": True,
}  # fmt: skip

GYM = {
    "NeMo-Gym, capture": _GYM,
    "NeMo-Gym, thinking off": {**_GYM, "chat_template_kwargs": {"enable_thinking": False}, "seed": 1},
    "NeMo-Gym, tools": {**_GYM, "tools": TOOLS, "tool_choice": "none"},
    "NeMo-Gym, a second turn": {
        **_GYM,
        "messages": [*HI, {"role": "assistant", "content": "Hello.", "prompt_token_ids": [1, 2],
                           "generation_token_ids": [3], "generation_log_probs": [-0.5]},
                     {"role": "user", "content": "Say bye."}],
    },
    "verifiers, chat": {
        "model": MODEL, "messages": HI, "max_completion_tokens": 16, "temperature": 0.0, "logprobs": True,
        "return_token_ids": True, "top_k": -1, "min_p": 0.0,
    },
    "SkyRL, chat through verifiers": {
        "model": MODEL, "messages": HI, "max_tokens": 16, "temperature": 0.0, "logprobs": True, "top_logprobs": 1,
        "return_tokens_as_token_ids": True, "min_tokens": 1, "skip_special_tokens": True,
        "include_stop_str_in_output": True, "top_k": -1, "min_p": 0.0,
    },
}  # fmt: skip

GYM_COMPLETIONS = {
    "NeMo-Gym, completions": {
        "model": MODEL, "prompt": "<|im_start|>user\nSay hi.<|im_end|>\n<|im_start|>assistant\n", "max_tokens": 40,
        "temperature": 0.0, "top_p": 1.0, "n": 1, "seed": 1, "logprobs": 0, "return_token_ids": True,
        "return_tokens_as_token_ids": True,
    },
}  # fmt: skip

_SENT = (
    (COMPLETIONS, TRL, {}),
    (COMPLETIONS, AREAL, {}),
    (CHAT, AREAL_CHAT, {}),
    (GENERATE, SKYRL, _SESSION),
    (GENERATE, PRIME, {**_OPENAI, **_SESSION}),
    (CHAT, GYM, _OPENAI),
    (COMPLETIONS, GYM_COMPLETIONS, _OPENAI),
)

CASES = [
    Case(name, path, body, headers, group="trainers")
    for path, bodies, headers in _SENT
    for name, body in bodies.items()
]
