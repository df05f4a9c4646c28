"""The suite's tables, on the terminal and in the documentation."""

from collections import Counter

import selftest
from compare import LOGPROB_TOLERANCE
from parts import Result

_INTRODUCTION = """# Conformance

`make conformance` asks a real vLLM {version} (CPU build, float32, SmolLM2-135M-Instruct) the same things directly and
through the sidecar, and compares the replies. `make conformance CONFORMANCE_FLAGS=--write-docs` wrote this page.

| part | what it asks | passed | failed | seconds |
| --- | --- | --- | --- | --- |
{parts}

The draft model is the quantised file that the server's model was made from, with {draft_tokens} drafts a round, so most
rounds accept several tokens. Of the {count} cases {speculated} were speculated and {forwarded} forwarded.

## How replies are compared

- A request is sent twice to one server, directly and through the sidecar, at temperature 0 or with `top_k` 1, with a
  `cache_salt` of its own each time: otherwise the second reply would show by `cached_tokens` what the first one left
  in the prefix cache. Cases about the cache, or about errors, bear no salt of the suite's.
- Status and `content-type` must be equal. Of the body, every field: the same keys in the same order, the same kinds
  of values (0 is not 0.0, null is not absent), no key twice, no white space.
- Log-probabilities may differ by {tolerance:g}, since the server's own depend on the shape of the batch. Nothing
  else may.
- Ids and times are compared by their form only (`cmpl-` and 16 digits), except where the request sets the id.
- Not compared: `cached_tokens` of a request whose prompts share a block that is not cached yet. The sidecar asks for
  several prompts at once, and any of them may come first.
- Whether a request was speculated is what the sidecar itself counts (`sidedraft_requests_total`).

A stream may be cut elsewhere, since a speculating server has several tokens at once. So its chunks are put together,
and compared are, for each choice: the text, the ids and the log-probabilities, each as one; every other value, and
whether it stands in every chunk, in the first or in the last; the key order of each kind of chunk (the opening one with
the role, content, the finishing one, the usage); the usage at the end of the choice, that each chunk has one where
asked for, and that it only grows. The order of the kinds of chunks must be the same, with one `[DONE]` at the end.

Before each run, {selftest} changes of recorded replies show that all of this is noticed, and that another cut is not.

## The other parts

- **sampled**: requests at temperature 1. The reply must have the form of the server's, its text must be what vLLM's
  own incremental detokenizer makes of its ids, each log-probability what the server gives as a prompt log-probability
  to the same id after the same tokens (within {tolerance:g}), and the end, its reason and the usage must fit the ids.
- **roundtrip**: 200 streams at temperature 1 of pieces of multi-byte characters, whole ones and special tokens, after
  prompts that may end inside a character: the text is what vLLM's detokenizer makes of the ids. 40 of them again at
  temperature 0: streamed, whole, and the server's own reply say the same.
- **fuzz**: 1,000 requests, made from those of the cases by changing bodies, bytes and headers with a seeded generator,
  four at a time: the same class of status and type of error, the same reply where it is greedy, and within a minute;
  afterwards the sidecar is alive, and its and the server's gauges of what is running are back at zero.
"""


def part(result: Result) -> str:
    """A part's table and its count, for the terminal."""
    lines = []
    if result.outcomes:
        lines.append(_aligned(_rows(result)))
    lines += [f"- {note}" for note in result.notes]
    lines.append(f"{result.name}: {result.passed} passed, {result.failed} failed, {result.seconds:.0f} s")
    return "\n".join(lines)


def document(results: list[Result], version: str, draft_tokens: int) -> str:
    """The whole page."""
    outcomes = [outcome for result in results for outcome in result.outcomes]
    became = Counter(outcome.became.split(":")[0] for outcome in outcomes)
    page = _INTRODUCTION.format(
        version=version,
        parts="\n".join(f"| {r.name} | {r.about} | {r.passed} | {r.failed} | {r.seconds:.0f} |" for r in results),
        draft_tokens=draft_tokens,
        count=len(outcomes),
        speculated=became["speculated"],
        forwarded=became["forwarded"],
        tolerance=LOGPROB_TOLERANCE,
        selftest=selftest.count(),
    )
    failures = [f"- {result.name}: {_cell(failure)}" for result in results for failure in result.failures]
    page += "\n## What differs\n\n" + ("\n".join(failures) if failures else "Nothing.") + "\n"
    notes = [f"- {result.name}: {note}" for result in results for note in result.notes]
    page += "\n## What the sidecar did in the other parts\n\n" + "\n".join(notes) + "\n\n## Cases\n\n"
    return page + "\n".join(markdown for result in results if result.outcomes for markdown in _markdown(_rows(result)))


def _rows(result: Result) -> list[list[str]]:
    rows = [["endpoint", "case", "status", "sidecar", f"replies (log-probabilities within {LOGPROB_TOLERANCE:g})"]]
    for each in result.outcomes:
        verdict = "same" if each.same else f"differs at {each.found[0].path}"
        rows.append([each.case.endpoint, each.case.name, str(each.status), each.became, verdict])
    return rows


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _markdown(rows: list[list[str]]) -> list[str]:
    header, *body = ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
    return [header, "|" + " --- |" * len(rows[0]), *body, ""]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
