"""Runs rollouts against a server and measures them, from outside, as a trainer sees them."""

import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass

REQUEST_TIMEOUT = 300.0
GAP_CANDIDATES = 5

DRAFTS = "vllm:spec_decode_num_drafts_total"
DRAFTED = "vllm:spec_decode_num_draft_tokens_total"
ACCEPTED = "vllm:spec_decode_num_accepted_tokens_total"


class DemoError(Exception):
    """Something failed to run: shown as one message, without a traceback."""


@dataclass(frozen=True)
class Speculation:
    """The sidecar's counters: verification rounds, tokens drafted in them, and drafts accepted."""

    rounds: float = 0
    drafted: float = 0
    accepted: float = 0

    def __add__(self, other: "Speculation") -> "Speculation":
        return Speculation(
            self.rounds + other.rounds, self.drafted + other.drafted, self.accepted + other.accepted
        )

    def __sub__(self, other: "Speculation") -> "Speculation":
        return Speculation(
            self.rounds - other.rounds, self.drafted - other.drafted, self.accepted - other.accepted
        )

    @property
    def acceptance_length(self) -> float | None:
        """Mean tokens per verification round: the accepted drafts and the one token that each round adds."""
        return 1 + self.accepted / self.rounds if self.rounds else None

    @property
    def acceptance_rate(self) -> float | None:
        return self.accepted / self.drafted if self.drafted else None


@dataclass(frozen=True)
class Rollout:
    """One finished rollout: what was sampled, and how long the client waited for it."""

    token_ids: list[int]
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        return len(self.token_ids) / self.seconds


@dataclass(frozen=True)
class Arm:
    """One of the two ways to the model: a base URL, and a prefix cache of its own."""

    name: str
    url: str
    cache_salt: str

    def rollout(self, prompt: list[int], temperature: float, max_tokens: int) -> Rollout:
        request = {
            "prompt": prompt,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "cache_salt": self.cache_salt,
            "return_token_ids": True,
        }
        started = time.perf_counter()
        reply = post(f"{self.url}/v1/completions", request)
        seconds = time.perf_counter() - started
        return Rollout(reply["choices"][0]["token_ids"], seconds)

    def gap(self, context: list[int], chosen: int, other: int) -> float | None:
        """How much likelier the server finds one token than another after a context, in nats.
        None when one of them is not among the likeliest."""
        request = {
            "prompt": context,
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": GAP_CANDIDATES,
            "return_tokens_as_token_ids": True,
        }
        likeliest = post(f"{self.url}/v1/completions", request)["choices"][0]["logprobs"]["top_logprobs"][0]
        try:
            return likeliest[f"token_id:{chosen}"] - likeliest[f"token_id:{other}"]
        except KeyError:
            return None

    def speculation(self) -> Speculation:
        """The counters now; all zero where the server does not speculate."""
        text = get(f"{self.url}/metrics")
        return Speculation(total(text, DRAFTS), total(text, DRAFTED), total(text, ACCEPTED))


def chat_prompt(url: str, text: str) -> list[int]:
    """The ids of a user's message in the model's own chat template."""
    return post(f"{url}/tokenize", {"messages": [{"role": "user", "content": text}]})["tokens"]


def total(metrics: str, name: str) -> float:
    """The sum over all label sets of one metric in Prometheus' text format."""
    lines = (line for line in metrics.splitlines() if line.startswith((f"{name}{{", f"{name} ")))
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def post(url: str, body: dict) -> dict:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    return json.loads(_open(request))


def get(url: str) -> str:
    return _open(urllib.request.Request(url)).decode()


def _open(request: urllib.request.Request) -> bytes:
    try:
        with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT) as reply:
            return reply.read()
    except urllib.error.HTTPError as error:
        detail = error.read().decode(errors="replace")[:500]
        raise DemoError(f"{request.full_url} answered {error.code}: {detail}") from error
    except OSError as error:
        raise DemoError(f"{request.full_url} did not answer: {error}") from error
