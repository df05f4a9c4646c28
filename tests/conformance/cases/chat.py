"""Requests to `/v1/chat/completions`: every field of the server's `ChatCompletionRequest` at least once."""

from case import CHAT, OMIT, Case, merged

from cases.prompts import COMMA, CONTINUOUS, END, HI, MODEL, SKY, TOOLS, USAGE

DEFAULT = {"model": MODEL, "messages": HI, "max_tokens": 10, "temperature": 0}

_TURNS = [
    {"role": "system", "content": "You answer briefly."},
    {"role": "user", "content": "One plus one?"},
    {"role": "assistant", "content": "Two."},
    {"role": "user", "content": "And three more?"},
]
_UNFINISHED = [*HI, {"role": "assistant", "content": "Hello, my dear"}]
_TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{{ tail | default('assistant:') }}"
_LIST = [{"role": "user", "content": "List three fruits, separated by commas."}]
_EMOJI = [{"role": "user", "content": "Repeat these: 🎉🎊🥳 🎉🎊🥳 🎉🎊🥳"}]
_CALL = {"id": "call-1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}

MESSAGES = {
    "one turn": {},
    "several turns": {"messages": _TURNS},
    "content parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "Say hi."}]}]},
    "two content parts": {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Say"}, {"type": "text", "text": "hi."}]}]
    },
    "a named user": {"messages": [{"role": "user", "content": "Say hi.", "name": "ann"}]},
    "developer turn": {"messages": [{"role": "developer", "content": "Be brief."}, *HI]},
    "tool turn": {
        "messages": [*HI, {"role": "assistant", "content": "", "tool_calls": [_CALL]},
                     {"role": "tool", "tool_call_id": "call-1", "content": "Sunny"}]
    },
    "reasoning in a turn": {"messages": [*HI, {"role": "assistant", "content": "Hi", "reasoning": "well"}, *HI]},
    "empty content": {"messages": [{"role": "user", "content": ""}]},
    "unicode": {"messages": _EMOJI, "max_tokens": 20, "return_token_ids": True},
    "continue_final_message": {
        "messages": _UNFINISHED, "continue_final_message": True, "add_generation_prompt": False,
    },
    "continue_final_message with echo": {
        "messages": _UNFINISHED, "continue_final_message": True, "add_generation_prompt": False, "echo": True,
    },
    "continue_final_message with echo, streamed": {
        "messages": _UNFINISHED, "continue_final_message": True, "add_generation_prompt": False, "echo": True,
        "stream": True, "stream_options": CONTINUOUS,
    },
    "add_generation_prompt false": {"add_generation_prompt": False, "return_token_ids": True},
    "add_generation_prompt false, streamed": {"add_generation_prompt": False, "stream": True},
    "echo": {"echo": True},
    "add_special_tokens": {"add_special_tokens": True, "return_token_ids": True},
    "chat_template": {"chat_template": _TEMPLATE, "return_token_ids": True},
    "chat_template_kwargs": {"chat_template": _TEMPLATE, "chat_template_kwargs": {"tail": "bot:"}},
    "chat_template_kwargs alone": {"chat_template_kwargs": {"enable_thinking": False}},
    "documents": {"documents": [{"title": "A", "text": "B"}]},
    "truncate_prompt_tokens": {"truncate_prompt_tokens": 20, "return_token_ids": True},
    "truncation_side right": {
        "truncate_prompt_tokens": 20, "truncation_side": "right", "return_token_ids": True,
    },
    "model absent": {"model": OMIT},
}  # fmt: skip

LENGTHS = {
    "max_completion_tokens": {"max_tokens": OMIT, "max_completion_tokens": 5},
    "max_completion_tokens and max_tokens": {"max_tokens": 4, "max_completion_tokens": 6},
    "max_tokens 1": {"max_tokens": 1},
    "max_tokens null": {"max_tokens": None},
    "no limit": {"max_tokens": OMIT, "return_token_ids": True},
    "no limit, streamed": {"max_tokens": OMIT, "stream": True, "stream_options": USAGE},
    "max_tokens 5000": {"max_tokens": 5000},
    "min_tokens": {"min_tokens": 28, "max_tokens": 34},
    "ignore_eos": {"ignore_eos": True, "max_tokens": 30},
    "end of text": {"max_tokens": 40, "logprobs": True, "return_token_ids": True},
    "end of text, streamed": {"max_tokens": 40, "stream": True, "logprobs": True, "return_token_ids": True},
}

LOGPROBS = {
    "logprobs": {"logprobs": True},
    "logprobs false": {"logprobs": False},
    "top_logprobs 0": {"logprobs": True, "top_logprobs": 0},
    "top_logprobs 5": {"logprobs": True, "top_logprobs": 5},
    "top_logprobs 20": {"logprobs": True, "top_logprobs": 20, "max_tokens": 4},
    "top_logprobs null": {"logprobs": True, "top_logprobs": None},
    "logprobs of partial characters": {"messages": _EMOJI, "logprobs": True, "top_logprobs": 3, "max_tokens": 20},
    "return_tokens_as_token_ids": {"logprobs": True, "top_logprobs": 2, "return_tokens_as_token_ids": True},
    "return_token_ids": {"return_token_ids": True},
    "return_prompt_text": {"return_prompt_text": True},
    "return_prompt_text, streamed": {"return_prompt_text": True, "stream": True, "return_token_ids": True},
    "return_token_offsets": {"return_token_offsets": True},
    "logprob_token_ids": {"logprobs": True, "logprob_token_ids": [28, 30]},
    "prompt_logprobs": {"prompt_logprobs": 1, "max_tokens": 2},
}

STOPS = {
    "stop string": {"stop": "there"},
    "stop across tokens": {"stop": ["I'm h"], "max_tokens": 20, "logprobs": True},
    "several stop strings": {"messages": _LIST, "stop": [",", "\n"], "max_tokens": 20},
    "include_stop_str_in_output": {"stop": ["I'm h"], "include_stop_str_in_output": True, "max_tokens": 20},
    "stop_token_ids": {"stop_token_ids": [COMMA, 17], "max_tokens": 20, "return_token_ids": True},
    "stop_token_ids is the end": {"stop_token_ids": [END], "max_tokens": 40},
    "skip_special_tokens false": {"skip_special_tokens": False, "max_tokens": 40},
    "spaces_between_special_tokens false": {"spaces_between_special_tokens": False},
}

SAMPLING = {
    "n 2, top_k 1": {"n": 2, "temperature": 1.0, "top_k": 1, "logprobs": True},
    "n null": {"n": None},
    "top_k, top_p and min_p at temperature 0": {"top_k": 5, "top_p": 0.5, "min_p": 0.2},
    "neutral values": {"top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0,
                       "frequency_penalty": 0.0, "length_penalty": 1.0, "use_beam_search": False},
    "seed": {"seed": 3},
    "seed at temperature 1": {"seed": 3, "temperature": 1.0},
    "logit_bias": {"logit_bias": {"19556": -100}},
    "allowed_token_ids": {"allowed_token_ids": [19556, 665, 17, 28, 2]},
    "bad_words": {"bad_words": ["Hello"]},
    "repetition_penalty": {"repetition_penalty": 1.2},
    "presence_penalty": {"presence_penalty": 1.0},
    "frequency_penalty": {"frequency_penalty": 1.0},
    "watermarking": {"watermarking": False},
    "beam search": {"use_beam_search": True, "n": 2, "max_tokens": 3},
    "repetition_detection": {"repetition_detection": {"max_pattern_size": 4, "min_count": 3}},
    "thinking_token_budget": {"thinking_token_budget": 5},
}  # fmt: skip

FORMATS = {
    "tools with tool_choice none": {"tools": TOOLS, "tool_choice": "none"},
    "tools with tool_choice auto": {"tools": TOOLS, "tool_choice": "auto"},
    "tools alone": {"tools": TOOLS},
    "tools with tool_choice required": {"tools": TOOLS, "tool_choice": "required", "max_tokens": 30},
    "tools with a named choice": {
        "tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "get_weather"}}, "max_tokens": 30,
    },
    "tool_choice null": {"tool_choice": None},
    "parallel_tool_calls false": {"tools": TOOLS, "tool_choice": "none", "parallel_tool_calls": False},
    "response_format text": {"response_format": {"type": "text"}},
    "response_format json_object": {"response_format": {"type": "json_object"}, "max_tokens": 16},
    "response_format json_schema": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": {
            "type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}},
        "max_tokens": 16,
    },
    "structured_outputs choice": {"messages": SKY, "structured_outputs": {"choice": ["yes", "no"]}},
    "structured_outputs regex, streamed": {"structured_outputs": {"regex": "[a-z]{4}"}, "stream": True},
    "reasoning_effort": {"reasoning_effort": "low"},
    "include_reasoning false": {"include_reasoning": False},
}  # fmt: skip

STREAMS = {
    "streamed": {"stream": True},
    "streamed with usage": {"stream": True, "stream_options": USAGE},
    "streamed with continuous usage": {"stream": True, "stream_options": CONTINUOUS},
    "streamed, empty stream_options": {"stream": True, "stream_options": {}},
    "streamed, token ids": {"stream": True, "return_token_ids": True},
    "streamed, logprobs": {"stream": True, "logprobs": True, "top_logprobs": 2},
    "streamed, tokens as ids": {"stream": True, "logprobs": True, "return_tokens_as_token_ids": True,
                                "stream_options": CONTINUOUS, "return_token_ids": True},
    "streamed, n 2, top_k 1": {"stream": True, "n": 2, "temperature": 1.0, "top_k": 1, "stream_options": CONTINUOUS,
                               "return_token_ids": True},
    "streamed, unicode": {"stream": True, "messages": _EMOJI, "max_tokens": 20, "return_token_ids": True},
    "streamed, stop string": {"stream": True, "stop": ["I'm h"], "max_tokens": 20, "return_token_ids": True},
    "streamed, stop token": {"stream": True, "stop_token_ids": [17], "stream_options": USAGE},
    "streamed, one token": {"stream": True, "max_tokens": 1},
    "streamed, echo": {"stream": True, "echo": True},
    "streamed, tools with tool_choice none": {"stream": True, "tools": TOOLS, "tool_choice": "none"},
    "streamed, stream_interval": {"stream": True, "stream_interval": 3},
}  # fmt: skip

OTHERS = {
    "user": {"user": "someone"},
    "priority 0": {"priority": 0},
    "priority 1": {"priority": 1},
    "session_id": {"session_id": "session-1"},
    "unknown field": {"no_such_field": 1},
    "OpenAI's own fields": {"metadata": {"a": "b"}, "store": False, "service_tier": "auto", "modalities": ["text"],
                            "prediction": None, "web_search_options": None},
    "mm_processor_kwargs": {"mm_processor_kwargs": {}},
    "media_io_kwargs": {"media_io_kwargs": {}},
    "mm_payload": {"mm_payload": "none"},
    "return_mm_kwargs": {"return_mm_kwargs": True},
    "kv_transfer_params null": {"kv_transfer_params": None, "ec_transfer_params": None},
    "vllm_xargs": {"vllm_xargs": {"odd": "1"}},
    "routed_experts_prompt_start": {"routed_experts_prompt_start": 1},
}  # fmt: skip

UNSALTED = {"no cache_salt": {"messages": [{"role": "system", "content": "Hi"}]}}

IDENTIFIED = {
    "request_id": ({"request_id": "mine"}, {}),
    "X-Request-Id": ({}, {"X-Request-Id": "from-the-header"}),
    "X-Request-Id beyond ASCII": ({}, {"X-Request-Id": "ä b/c"}),
    "X-Request-Id, streamed": ({"stream": True}, {"X-Request-Id": "from-the-header"}),
}

WARM = {
    "warm cache": {"cache_salt": "warm-chat"},
    "warm cache, streamed": {"cache_salt": "warm-chat", "stream": True, "stream_options": USAGE},
}

_GROUPS = {
    "messages": MESSAGES,
    "lengths": LENGTHS,
    "logprobs": LOGPROBS,
    "stops": STOPS,
    "sampling": SAMPLING,
    "formats": FORMATS,
    "streams": STREAMS,
    "others": OTHERS,
}


def _case(name: str, fields: dict, **settings) -> Case:
    return Case(name, CHAT, merged(DEFAULT, fields), **settings)


CASES = [_case(name, fields, group=group) for group, of in _GROUPS.items() for name, fields in of.items()]
CASES += [_case(name, fields, salted=False) for name, fields in UNSALTED.items()]
CASES += [_case(name, fields, headers=headers, same_ids=True) for name, (fields, headers) in IDENTIFIED.items()]
CASES += [_case(name, fields, salted=False, warm=True) for name, fields in WARM.items()]
