"""The parts of the suite: each takes the setting, prints as it goes, and gives a result."""

import fnmatch
from collections.abc import Callable
from dataclasses import dataclass, field

import cases
import counters
import coverage
import differential
import fuzz
import reference
import roundtrip
import sampled
from case import Case
from differential import Outcome


@dataclass(frozen=True)
class Setting:
    """What the parts run against."""

    direct: str
    """The server's URL."""
    sidecar: str
    """The sidecar's URL."""
    python: str
    """A Python that has vLLM."""
    model: str
    """The served model's folder."""
    only: str = ""
    """Which cases: a part of `endpoint: name`, or a shell pattern for it."""
    seed: int = 20

    def wants(self, case: Case) -> bool:
        title = f"{case.endpoint}: {case.name}"
        return self.only in title or fnmatch.fnmatch(title, self.only)


@dataclass
class Result:
    """What a part found."""

    name: str
    about: str
    """What it asks, in a few words."""
    passed: int = 0
    failures: list[str] = field(default_factory=list)
    """A line for each failure."""
    notes: list[str] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    """Of the differential cases."""
    seconds: float = 0.0

    @property
    def failed(self) -> int:
        return len(self.failures)

    def record(self, title: str, found: list) -> None:
        """Counts one check, and prints what is wrong with it."""
        if not found:
            self.passed += 1
            return
        self.failures.append(f"{title}: {found[0]}")
        print(f"FAILED  {self.name}: {title}", *(f"        {each}" for each in found[:6]), sep="\n", flush=True)


def run_cases(setting: Setting) -> Result:
    """Part one."""
    result = Result("cases", "every field and many errors, both ways")
    if not setting.only:
        result.record("every field that the server names is in some case", coverage.missing(setting.direct))
    chosen = [case for case in cases.ALL if setting.wants(case)]
    for number, case in enumerate(chosen, 1):
        outcome = differential.run(case, setting.direct, setting.sidecar)
        result.outcomes.append(outcome)
        result.record(f"{case.endpoint}: {case.name} ({outcome.became})", outcome.found)
        if number % 50 == 0:
            print(f"        {number} of {len(chosen)} cases", flush=True)
    return result


def run_sampled(setting: Setting) -> Result:
    """Part two."""
    result = Result("sampled", "requests at temperature 1")
    speculated = 0
    with reference.running(setting.python, setting.model) as detokenizer:
        for case in filter(setting.wants, sampled.chosen()):
            became, found = sampled.check(case, setting.direct, setting.sidecar, detokenizer)
            if became is None:
                continue
            speculated += became == "speculated"
            result.record(f"{case.endpoint}: {case.name} ({became})", found)
    result.notes.append(f"{speculated} of {result.passed + result.failed} were speculated")
    return result


def run_roundtrip(setting: Setting) -> Result:
    """Part three."""
    result = Result("roundtrip", "streams of pieces of characters")
    before = counters.outcomes(setting.sidecar)
    with reference.running(setting.python, setting.model) as detokenizer:
        for title, found in roundtrip.run(setting.direct, setting.sidecar, setting.model, setting.seed, detokenizer):
            result.record(title, found)
    became = counters.outcomes(setting.sidecar) - before
    result.notes.append("requests: " + ", ".join(f"{count} {name}" for name, count in became.most_common()))
    return result


def run_fuzz(setting: Setting) -> Result:
    """Part four."""
    result = Result("fuzz", "mutated requests, and what is left of them")
    before = counters.outcomes(setting.sidecar)
    for title, found in fuzz.run(setting.direct, setting.sidecar, setting.seed):
        result.record(title, found)
    became = counters.outcomes(setting.sidecar) - before
    result.notes.append("requests: " + ", ".join(f"{count} {name}" for name, count in became.most_common()))
    return result


PARTS: dict[str, Callable[[Setting], Result]] = {
    "cases": run_cases,
    "sampled": run_sampled,
    "roundtrip": run_roundtrip,
    "fuzz": run_fuzz,
}
