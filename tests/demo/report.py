"""The demo's table: what was measured, whichever way it came out."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from rollouts import Rollout, Speculation

# In nats. Logits of a bfloat16 model are spaced by an eighth where its likeliest tokens lie, and
# vLLM's own differ by that much between one batch shape and another.
NEAR_TIE = 0.25

CAVEATS = [
    "The draft is the target's own GGUF file, quantised again to 8 bits: a generous draft of the model "
    "that was made from it, so expect less from a draft that was trained apart.",
    "The target runs in bfloat16, where vLLM's own numbers depend on the shape of the batch: greedy "
    f"outputs may part at a near-tie (here: two tokens within {NEAR_TIE} nats of each other), and from "
    "there on they differ.",
    "One request at a time. Each way has a cache_salt of its own, so neither finds the other's tokens in "
    "the server's prefix cache.",
]


@dataclass(frozen=True)
class Pair:
    """The same prompt at the same temperature, both ways."""

    temperature: float
    direct: Rollout
    proxied: Rollout
    speculation: Speculation
    parting_gap: float | None = None
    """Where the tokens of two greedy rollouts part: how much likelier the server finds its own."""

    @property
    def ratio(self) -> float:
        return self.proxied.tokens_per_second / self.direct.tokens_per_second

    @property
    def identical(self) -> bool:
        return self.direct.token_ids == self.proxied.token_ids

    @property
    def parted_at_near_tie(self) -> bool:
        return self.parting_gap is not None and abs(self.parting_gap) <= NEAR_TIE


def table(pairs: list[Pair]) -> list[list[str]]:
    """Rows of cells, the header first: a column for each temperature, and one for all."""
    temperatures = sorted({pair.temperature for pair in pairs})
    columns = [(f"temperature {t:g}", [p for p in pairs if p.temperature == t]) for t in temperatures]
    if len(columns) > 1:
        columns.append(("all", pairs))
    rows = [["", *(name for name, _ in columns)]]
    for label, cell in _ROWS.items():
        rows.append([label, *(cell(of) for _, of in columns)])
    return rows


def agreeing_share(pairs: list[Pair]) -> float:
    """The share of greedy pairs that are identical, or part where the server itself all but tossed a coin."""
    greedy = _greedy(pairs)
    return sum(pair.identical or pair.parted_at_near_tie for pair in greedy) / len(greedy)


def _greedy(pairs: list[Pair]) -> list[Pair]:
    return [pair for pair in pairs if pair.temperature == 0]


def aligned(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def markdown(rows: list[list[str]]) -> str:
    header, *body = rows
    lines = [header, ["---"] * len(header), *body]
    notes = "\n".join(f"- {caveat}" for caveat in CAVEATS)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{notes}\n"


def _ratio(pairs: list[Pair]) -> str:
    ratios = [pair.ratio for pair in pairs]
    return f"{median(ratios):.2f}x ({min(ratios):.2f} .. {max(ratios):.2f})"


def _speculation(pairs: list[Pair]) -> Speculation:
    return sum((pair.speculation for pair in pairs), Speculation())


def _share(pairs: list[Pair], holds: Callable[[Pair], bool]) -> str:
    greedy = _greedy(pairs)
    return f"{sum(map(holds, greedy))} of {len(greedy)}" if greedy else "–"


def _or_none(value: float | None, form: str) -> str:
    return "none reported" if value is None else format(value, form)


_ROWS = {
    "rollouts each way": lambda pairs: str(len(pairs)),
    "direct, tokens/s (median)": lambda pairs: f"{median(p.direct.tokens_per_second for p in pairs):.1f}",
    "sidecar, tokens/s (median)": lambda pairs: f"{median(p.proxied.tokens_per_second for p in pairs):.1f}",
    "ratio (median of pairs, min .. max)": _ratio,
    "acceptance length (tokens a round)": lambda pairs: _or_none(_speculation(pairs).acceptance_length, ".2f"),
    "acceptance rate": lambda pairs: _or_none(_speculation(pairs).acceptance_rate, ".1%"),
    "identical greedy outputs": lambda pairs: _share(pairs, lambda pair: pair.identical),
    "greedy outputs parted at a near-tie": lambda pairs: _share(pairs, lambda pair: pair.parted_at_near_tie),
}
