"""Word-level differences of two texts, abridged.

in:  a text before and after
out: Diff: spans in both, spans only in one, omitted lengths
"""

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import islice, takewhile

from groundup.text.inspect.report import Diff

CONTEXT = 60
"""Characters shown around a change."""
_WORD = re.compile(r"\w+\s*|[^\w\s]\s*|\s+")
_LINES = 4000
"""Maximum number of lines compared."""
_HUNK = 1500
"""Maximum characters of one change that are compared word by word."""


def changes(before: str, after: str, room: int) -> Diff:
    """Changed places with some context, up to `room` characters. Empty for equal texts."""
    if before == after:
        return ()
    old, new = before.splitlines(keepends=True)[:_LINES], after.splitlines(keepends=True)[:_LINES]
    pieces: list[tuple[str, str]] = []
    for op, i, j, k, m in SequenceMatcher(None, old, new).get_opcodes():
        hunk = [("=", "".join(old[i:j]))] if op == "equal" else words("".join(old[i:j]), "".join(new[k:m]))
        pieces += hunk
    return shorten(_joined(pieces), room)


def shorten(pieces: Sequence[tuple[str, str]], room: int) -> Diff:
    """Changed places among `pieces` with some context, up to `room` characters."""
    shown: list[tuple[str, str]] = []
    for number, (kind, text) in enumerate(pieces):
        if kind == "=":
            shown += _shortened(text, first=number == 0, last=number == len(pieces) - 1)
        else:
            shown.append((kind, text[:_HUNK]))
        room -= len(shown[-1][1])
        if room < 0 and number < len(pieces) - 1:
            shown.append(("~", "more changes"))
            break
    return tuple(shown)


def words(old: str, new: str) -> list[tuple[str, str]]:
    """Spans of both texts: common ones, and those in only one."""
    head = _alike(old, new)
    tail = _alike(old[head:][::-1], new[head:][::-1])
    head -= _letters(reversed(old[:head]))  # a word is compared as a whole
    tail -= _letters(iter(old[len(old) - tail :]))
    end_old, end_new = len(old) - tail, len(new) - tail
    a, b = _WORD.findall(old[head:end_old][:_HUNK]), _WORD.findall(new[head:end_new][:_HUNK])
    pieces = [("=", old[:head])]
    for op, i, j, k, m in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if op == "equal":
            pieces.append(("=", "".join(a[i:j])))
        else:
            pieces += [("-", "".join(a[i:j])), ("+", "".join(b[k:m]))]
    rest_old, rest_new = old[head:end_old][_HUNK:], new[head:end_new][_HUNK:]
    pieces += [("-", rest_old), ("+", rest_new), ("=", old[end_old:])]
    return _joined(pieces)


def _alike(a: str, b: str) -> int:
    """Length of the common prefix."""
    both = zip(a, b, strict=False)
    return next((at for at, (x, y) in enumerate(both) if x != y), min(len(a), len(b)))


def _letters(text: Iterator[str]) -> int:
    """Number of leading letters and digits, at most CONTEXT."""
    return sum(1 for _ in takewhile(str.isalnum, islice(text, CONTEXT)))


def _joined(pieces: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Merges neighbouring spans of one kind; removes empty ones."""
    joined: list[tuple[str, str]] = []
    for op, text in pieces:
        if joined and joined[-1][0] == op:
            joined[-1] = (op, joined[-1][1] + text)
        elif text:
            joined.append((op, text))
    return joined


def _shortened(text: str, first: bool, last: bool) -> list[tuple[str, str]]:
    """An unchanged span: only its ends, next to changes."""
    left, right = (0 if first else CONTEXT), (0 if last else CONTEXT)
    hidden = len(text) - left - right
    if hidden <= CONTEXT:
        return [("=", text)]
    middle = ("~", f"{hidden:,} characters")
    head, tail = text[:left], text[len(text) - right :]
    head, tail = head[: head.rfind(" ") + 1] or head, tail[tail.find(" ") + 1 :]  # not within a word
    return [piece for piece in (("=", head), middle, ("=", tail)) if piece[1]]
