"""docker/Dockerfile, as far as the checks read it."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

DOCKER = Path(__file__).resolve().parents[2] / "docker"
DOCKERFILE = DOCKER / "Dockerfile"
COMPOSE = DOCKER / "compose.yaml"


@dataclass(frozen=True)
class Stage:
    base: str
    name: str
    # Instructions with their arguments, in their order.
    steps: tuple[tuple[str, str], ...]

    def all(self, instruction: str) -> list[str]:
        return [arguments for name, arguments in self.steps if name == instruction]

    def one(self, instruction: str) -> str:
        (arguments,) = self.all(instruction)
        return arguments

    @property
    def health(self) -> list[str]:
        """The command of its health check."""
        return json.loads(self.one("HEALTHCHECK").split(" CMD ", 1)[1])

    @property
    def variables(self) -> dict[str, str]:
        return dict(each.split("=", 1) for each in self.all("ENV"))

    @property
    def copies(self) -> list[tuple[str, str]]:
        """What it takes from the build, and where to."""
        found = [re.fullmatch(r"--from=build (\S+) (\S+)", each) for each in self.all("COPY")]
        return [(each[1], each[2]) for each in found]

    @property
    def packages(self) -> list[str]:
        """What it installs by apt-get."""
        found = [re.search(r"apt-get install ([^&;]*)", each) for each in self.all("RUN")]
        return [word.split("=")[0] for each in found if each for word in each[1].split() if not word.startswith("-")]


def stages(text: str) -> dict[str, Stage]:
    """Each by its name."""
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip() and not line.startswith("#")]
    found: list[tuple[str, list]] = []
    for line in lines:
        instruction, arguments = line.split(maxsplit=1)
        if instruction == "FROM":
            found.append((arguments, []))
        else:
            found[-1][1].append((instruction, re.sub(r"\s+", " ", arguments)))
    named = [re.fullmatch(r"(\S+)(?: AS (\S+))?", first) for first, _ in found]
    return {each[2] or each[1]: Stage(each[1], each[2] or "", tuple(steps)) for each, (_, steps) in zip(named, found)}
