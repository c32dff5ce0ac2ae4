"""stdin, stdout and stderr of a command, whatever the locale and whatever the shell closed.

in:  the process's streams
out: streams that any text can be read from and written to; JSON that is valid in any encoding
"""

import json
import os
import sys
from io import TextIOWrapper
from typing import Any

ORDERING = [*range(0x200E, 0x2010), *range(0x2028, 0x202F), *range(0x2066, 0x206A), 0x61C]
"""Characters that change text direction or order, or start a new line."""
_ESCAPES = {code: f"\\u{code:04x}" for code in [0x7F, *range(0x80, 0xA0), *ORDERING]}


def prepare_standard_streams() -> None:
    """Make no character and no byte an error.

    Characters that the encoding lacks are written as escapes (\\xe9), invalid bytes are read as U+FFFD. Where the
    locale is ASCII, stdin is read as UTF-8, of which ASCII is a part. A stream that the shell closed is replaced by
    /dev/null, so that no file is opened in its place.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            _replace_closed(number, name, mode)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdin, TextIOWrapper):
        is_ascii = sys.stdin.encoding.lower() in ("ascii", "us-ascii", "ansi_x3.4-1968")
        sys.stdin.reconfigure(encoding="utf-8" if is_ascii else None, errors="replace")


def print_json(value: Any, indent: int | None = 1) -> None:
    """Print a JSON document; what a terminal would interpret, or stdout's encoding lacks, is escaped."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, default=str).translate(_ESCAPES)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = json.dumps(value, indent=indent, default=str)
    print(text, flush=True)


def _replace_closed(number: int, name: str, mode: str) -> None:
    descriptor = os.open(os.devnull, os.O_RDONLY if mode == "r" else os.O_WRONLY)
    if descriptor != number:
        os.dup2(descriptor, number)
        os.close(descriptor)
    setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
