"""Which fields of the server's requests no case has, by the server's own description of its routes."""

import cases
import wire
from case import CHAT, COMPLETIONS, GENERATE

_SCHEMAS = {COMPLETIONS: "CompletionRequest", CHAT: "ChatCompletionRequest", GENERATE: "GenerateRequest"}


def missing(direct: str) -> list[str]:
    """Fields that are in no case, but for those that only errors are about."""
    schemas = wire.get(direct, "/openapi.json").json()["components"]["schemas"]
    found = []
    for path, name in _SCHEMAS.items():
        properties = schemas[name]["properties"]
        bodies = [case.body for case in cases.ALL if case.path == path and not case.is_edge and case.raw is None]
        used = {field for body in bodies for field in body}
        found += [f"{name}.{field}" for field in properties if field not in used | {"cache_salt"}]
        if path == GENERATE:
            inner = properties["sampling_params"]["properties"]
            used = {field for body in bodies for field in body["sampling_params"]}
            found += [f"sampling_params.{field}" for field in inner if field not in used]
    return found
