"""JSON Lines: one JSON value per line. Lines end at a line feed alone: U+2028 or U+0085 may be inside a string.

in:  a path, or lines as bytes
out: values
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def read_jsonl(path: Path, skip_invalid: bool = False) -> Iterator[Any]:
    """Values of a file. Raises ValueError naming file and line; skip_invalid: skips such lines (a torn last one)."""
    with path.open("rb") as file:
        try:
            yield from parse_lines(file, skip_invalid)
        except ValueError as error:
            raise ValueError(f"{path}, {error}") from None


def parse_lines(lines: Iterable[bytes], skip_invalid: bool = False) -> Iterator[Any]:
    """Values of lines in UTF-8; empty lines are skipped. Raises ValueError naming the line."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except ValueError as error:
            if not skip_invalid:
                raise ValueError(f"line {number}: not JSON: {error}") from None
