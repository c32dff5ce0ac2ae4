"""Messages about input that was lost, and the rejects log as JSON lines.

in:  an artifact's rejects log and the stage's counts
out: for each kind of loss one message with the reasons, an example with its file, and where the rest is listed
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from groundup.core.atomic_io import write_text
from groundup.text.documents import REJECTS, RejectsLogEntry, read_rejects_log, spell_reasons

LEFT_OUT = {"gitignored", "workspace", "virtual_environment", "node_modules", "cache", "version_control"}
"""Reasons of files that are not part of the corpus (see exclude.py)."""
_SEARCHED = 100_000
"""Entries of the rejects log that are searched for examples."""


def rejects_messages(
    artifact: Path, metrics: dict[str, Any], log: str = f"{REJECTS}/ (groundup inspect)"
) -> Iterator[str]:
    """What was rejected, read in part, left out, and cut. log: where the reader finds the rejects log."""
    rejected = Counter(metrics["files_rejected"]) + Counter(metrics["records_rejected"])
    lost = Counter({reason: count for reason, count in rejected.items() if reason not in LEFT_OUT})
    left_out = rejected - lost
    partly = Counter({reason: count for reason, count in metrics["changed"].items() if _is_loss(reason)})
    where = f"all are listed in {log}"
    if lost:
        yield f"rejected: {spell_reasons(lost)}; {_example(artifact, lost)}; {where}"
    if partly:
        yield f"read in part: {spell_reasons(partly)}; {_example(artifact, partly)}; {where}"
    if left_out:
        hint = "" if set(left_out) == {"version_control"} else "; skip_ignored = false reads them"
        yield f"left out: {spell_reasons(left_out)}{hint}"
    few = metrics["changed"].get("cut_few_files", 0)
    if few:
        entry = _first(artifact, "cut_few_files")
        name = entry.path if entry else "a file"
        files = f"{name} and {few - 1} more files are" if few > 1 else f"{name} is"
        yield f"{files} cut at paragraph ends: with so few files, their parts count as documents"


def write_rejects(artifact: Path, path: Path) -> None:
    """The rejects log of an artifact as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(asdict(entry), ensure_ascii=False) + "\n" for entry in read_rejects_log(artifact))
    write_text(path, "".join(lines))


def _is_loss(reason: str) -> bool:
    return reason.startswith("damaged_") or reason in ("expands_too_much", "reader_failed", "too_costly")


def _example(artifact: Path, reasons: Counter[str]) -> str:
    """`for example notes/a.bin: binary`: the first entry of the most frequent reason."""
    reason = reasons.most_common(1)[0][0]
    entry = _first(artifact, reason)
    return "" if entry is None else f"for example {entry.path}: {entry.detail or reason.replace('_', ' ')}"


def _first(artifact: Path, reason: str) -> RejectsLogEntry | None:
    """The first entry with this reason among those that are searched."""
    entries = islice(read_rejects_log(artifact), _SEARCHED)
    return next((entry for entry in entries if entry.reason == reason), None)
