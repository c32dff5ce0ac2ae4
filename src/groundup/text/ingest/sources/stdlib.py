"""Source `stdlib`: the standard library of the running Python, and its language reference.

in:  the interpreter's .py files, without test suites
out: a document per module (`json/decoder.py`) and per topic of the reference (`pydoc_data/topics/assert`)
"""

import ast
import os
import sysconfig
from collections.abc import Iterator
from contextlib import AbstractContextManager
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from pydantic import Field

from groundup.core.errors import DataError
from groundup.text.ingest.decode import Undecodable, decode
from groundup.text.ingest.safe_open import open_regular
from groundup.text.ingest.types import ExtractedText, ReadIssue, SourceFile, SourceRecipe

TOPICS = "pydoc_data/topics.py"
# Test suites by whatever name, other people's packages, and what the build of the interpreter left behind.
_NOT_LIBRARY = frozenset(
    {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "_bundled", "__phello__"}
)


_MOST_BYTES = 16 << 20
"""Size limit, far above any module."""


class Stdlib(SourceRecipe):
    """The standard library of the running Python; nothing to configure."""

    licence: str = Field(default="PSF-2.0", description="licence of the standard library")

    def files(self) -> Iterator[SourceFile]:
        """The library's modules by path. Raises DataError if this Python has no source files."""
        root = Path(sysconfig.get_path("stdlib"))
        paths: list[str] = []
        for folder, folders, names in os.walk(root):
            folders[:] = [
                name for name in folders if name not in _NOT_LIBRARY and not name.startswith("config-")
            ]
            here = Path(folder).relative_to(root)
            paths += [(here / name).as_posix() for name in names if _is_source(name)]
        if not paths:
            raise DataError(
                f"ingest.sources: `stdlib` finds no .py files in {root}: this Python came without sources. "
                "Use another Python, or your own files with --data FOLDER."
            )
        for path in sorted(paths):
            yield SourceFile(path, root / path, bytes=(root / path).lstat().st_size)

    def open(self, file: SourceFile) -> AbstractContextManager[BufferedReader]:
        """Content of a module. Raises Unreadable."""
        return open_regular(Path(file.location), _MOST_BYTES)

    def read(self, path: str, file: BinaryIO, skip: int = 0) -> Iterator[ExtractedText | ReadIssue]:
        """The module as one document; the reference as one document per topic."""
        try:
            decoded = decode(file.read())
        except Undecodable as error:
            yield ReadIssue("rejected", error.reason, value=error.value, threshold=error.threshold)
            return
        if not decoded.text.strip():
            yield ReadIssue("rejected", "empty")
        elif path == TOPICS:
            for topic, text in sorted(_topics(decoded.text).items())[skip:]:
                yield ExtractedText(text, topic, f"{TOPICS.removesuffix('.py')}/{topic}")
        else:
            if decoded.reason:
                yield ReadIssue("changed", decoded.reason, value=decoded.value)
            yield ExtractedText(decoded.text)


def _is_source(name: str) -> bool:
    return name.endswith(".py") and not name.startswith("_sysconfigdata")


def _topics(source: str) -> dict[str, str]:
    """The dictionary assigned in topics.py, parsed without executing it."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            topics: dict[str, str] = ast.literal_eval(node.value)
            return topics
    return {}
