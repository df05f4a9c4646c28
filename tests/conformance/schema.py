"""The form of a reply, without its content: keys in order, kinds of values."""

import streams
from wire import Reply

# Objects whose keys are tokens.
_MAPS = {"top_logprobs", "prompt_logprobs"}
# One answer ends in one way, another in another; a token without text has no bytes.
_OPEN = {"stop_reason", "bytes"}


def of(reply: Reply) -> object:
    """The form of a whole reply, or of each kind of a stream's chunks."""
    if not reply.is_stream:
        return _form(reply.json())
    return {kind: shapes for kind, shapes in streams.read(reply.body).shapes.items() if kind != "content"}


def _form(value: object, key: str = "") -> object:
    if key in _OPEN:
        return "<any>"
    if isinstance(value, dict):
        if key in _MAPS:
            return {"<token>": _first(value.values())}
        return {name: _form(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_first(value, key)]
    return type(value).__name__


def _first(values, key: str = "") -> object:
    """The form of the first value that is not null: all of a list have the same."""
    return next((_form(value, key) for value in values if value is not None), None)
