"""Talks to a server with the official OpenAI client, as a trainer would.

usage: openai_client.py BASE_URL [DIRECT_URL]

Checks that what comes back at BASE_URL is well-formed for that client. With DIRECT_URL, the
unmodified server, it also checks that both give the same greedy answers in replies of the same shape,
and the same errors. For that the server should run in float32: in bfloat16 its own logprobs and
greedy tokens depend on the shape of the batch. Prints a line for each check; exits with 1 if any failed.

Run with the target environment's own Python: it needs the package `openai`.
"""

import sys
from collections.abc import Callable

import chat_checks
import completion_checks
import openai
from replies import Mismatch, compare, expect
from server import Server


def models(server: Server) -> object:
    listed = server.client.models.list().data
    expect(listed, "no model is listed")
    return [model.id for model in listed]


CHECKS: dict[str, Callable[[Server], object]] = {
    "models.list": models,
    **completion_checks.CHECKS,
    **chat_checks.CHECKS,
}


def main() -> int:
    if len(sys.argv) not in (2, 3):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        server, *direct = map(Server, sys.argv[1:])
    except openai.OpenAIError as error:
        print(f"cannot list the models: {error}", file=sys.stderr)
        return 1
    failed = 0
    for name, check in CHECKS.items():
        try:
            got = check(server)
            for other in direct:
                compare(got, check(other))
        except (Mismatch, openai.OpenAIError, KeyError, TypeError, IndexError) as error:
            failed += 1
            print(f"FAILED  {name}: {type(error).__name__}: {error}", flush=True)
        else:
            print(f"ok      {name}{' = direct' if direct else ''}", flush=True)
    print(f"{len(CHECKS) - failed} of {len(CHECKS)} checks hold")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
