"""The suite's tables, on the terminal and in the documentation."""

from pathlib import Path

from compare import LOGPROB_TOLERANCE
from parts import Result


def part(result: Result) -> str:
    """A part's table and its count."""
    lines = []
    if result.outcomes:
        rows = [["endpoint", "case", "status", "sidecar", f"replies (log-probabilities within {LOGPROB_TOLERANCE:g})"]]
        for each in result.outcomes:
            verdict = "same" if each.same else f"differs at {each.found[0].path}"
            rows.append([each.case.endpoint, each.case.name, str(each.status), each.became, verdict])
        lines.append(aligned(rows))
    lines += [f"- {note}" for note in result.notes]
    lines.append(f"{result.name}: {result.passed} passed, {result.failed} failed, {result.seconds:.0f} s")
    return "\n".join(lines)


def aligned(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
