"""A problem of a blueprint: what makes a stage impossible, or a setting doubtful or without effect.

Problems are kept in the workspace's `plans/`, so that `status` prints them without importing the stages.
"""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from groundup.core.atomic_io import write_json
from groundup.core.store import Store


@dataclass(frozen=True)
class Problem:
    """One message for the user, which names the key, its value, and what to do.

    stage: label of the stage that it concerns. impossible: the stage would fail; otherwise it is a warning.
    """

    stage: str
    text: str
    impossible: bool = False

    def line(self) -> str:
        """The message as one line."""
        return f"{'impossible' if self.impossible else 'warning'}: {self.text}"


@dataclass(frozen=True)
class KeptProblems:
    """The problems of a plan, with the content digests by label and the ranks for which they were found."""

    contents: Mapping[str, str]
    ranks: int
    problems: list[Problem]

    def still_hold(self, contents: Mapping[str, str]) -> bool:
        """Whether what they were found on is unchanged."""
        return all(contents.get(label) == value for label, value in self.contents.items())


def keep_problems(store: Store, plan: str, problems: KeptProblems) -> None:
    """Write the problems of a plan with this digest; without permission they are found again next time."""
    with contextlib.suppress(OSError):
        write_json(_path(store, plan), asdict(problems))


def load_problems(store: Store, plan: str) -> KeptProblems | None:
    """The kept problems of a plan with this digest."""
    try:
        kept = json.loads(_path(store, plan).read_text(encoding="utf-8"))
        return KeptProblems(kept["contents"], kept["ranks"], [Problem(**item) for item in kept["problems"]])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _path(store: Store, plan: str) -> Path:
    return store.root / "plans" / f"{plan[:16]}.problems.json"
