"""E-mail -> a document per message: a single one (eml), or many in one file (mbox), which is read as a stream.

in:  a message, or messages each after a line that begins with `From `
out: Subject and Date, then the text; quoted lines (`>`) are kept

Who wrote to whom stays out: no header but these two is read. Of a message in several forms the plain text is taken,
else the HTML as text. Attachments are counted and left out; forwarded messages are part of the one that carries them.
"""

import binascii
import email
import email.policy
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.errors import MessageError
from email.message import EmailMessage
from typing import BinaryIO

from groundup.text.ingest.decode import Undecodable, decode, unix_lines, without_surrogates
from groundup.text.ingest.formats._zip_safety import plain_text
from groundup.text.ingest.types import ExtractedText, Options, ReadIssue

_LINE = 1 << 16
_SEPARATOR = re.compile(rb"From .*\d\d:\d\d.*\d{4}")
"""`From someone Thu Jan  1 00:00:00 1970`: with a time, unlike a sentence that begins so."""
_QUOTED_SEPARATOR = re.compile(rb"^>(>*From )", re.MULTILINE)
_MOST_PARTS, _MOST_DEPTH = 1000, 32
_CONTAINER = re.compile(rb"^content-type:\s*(multipart|message)/", re.IGNORECASE | re.MULTILINE)
_MOST_WORK = 20_000_000
"""Lines times parts that hold parts: the parser asks at every line each part that is still open. Some seconds."""
_BROKEN = (MessageError, ValueError, LookupError, AttributeError, TypeError, IndexError, RecursionError,
           binascii.Error)  # fmt: skip
"""What the standard library's parser lets through on malformed mail, besides its own errors."""


def read(path: str, file: BinaryIO, options: Options, skip: int = 0) -> Iterator[ExtractedText | ReadIssue]:
    """A single message, or those of an mbox behind the first `skip`, in positions "1", "2" ..."""
    start = file.read(5)
    file.seek(0)
    if start == b"From ":
        for number, data in _messages(file, options.file_bytes, skip):
            if isinstance(data, int):
                yield ReadIssue("aside", "too_large", str(number), data, options.file_bytes)
            else:
                yield from _document(_QUOTED_SEPARATOR.sub(rb"\1", data), str(number))
    else:
        data = file.read(options.file_bytes + 1)
        if len(data) > options.file_bytes:
            yield ReadIssue("aside", "too_large", value=len(data), threshold=options.file_bytes)
        else:
            yield from _document(data, "")


def _messages(file: BinaryIO, most: int, skip: int) -> Iterator[tuple[int, bytes | int]]:
    """(number, message) for all behind the first `skip`; of one that is too large only its size."""
    number = size = 0
    kept: list[bytes] = []
    at_start, after_empty = True, True
    while line := file.readline(_LINE):
        if at_start and after_empty and _SEPARATOR.match(line):
            if number > skip:
                yield number, b"".join(kept) if size <= most else size
            number, size, kept = number + 1, 0, []
        else:
            number = number or 1  # begins with `From `, but not as an mbox should
            size += len(line)
            if size > most:
                kept = []
            elif number > skip:
                kept.append(line)
        after_empty = at_start and line in (b"\n", b"\r\n")
        at_start = line.endswith(b"\n")
    if number > skip:
        yield number, b"".join(kept) if size <= most else size


@dataclass
class _Found:
    """What a message holds: its texts in order, what was left out, and what was odd."""

    texts: list[str] = field(default_factory=list)
    attachments: int = 0
    parts: int = 0
    odd: Counter[str] = field(default_factory=Counter)


def _document(data: bytes, position: str) -> Iterator[ExtractedText | ReadIssue]:
    if not data.strip():
        yield ReadIssue("aside", "empty", position)
        return
    found = _Found()
    work = data.count(b"\n") * sum(1 for _ in _CONTAINER.finditer(data))
    if work > _MOST_WORK:
        yield ReadIssue("aside", "too_costly", position, work, _MOST_WORK, "lines times nested parts")
        return
    try:
        message = email.message_from_bytes(data, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        head = _head(message)
        _collect(message, found, 0)
    except _BROKEN as error:
        yield ReadIssue(
            "aside", "malformed_message", position, detail=f"{type(error).__name__}: {error}"[:300]
        )
        return
    body = "\n\n".join(found.texts)
    if not body.strip():
        reason = "binary" if found.odd["undecodable"] else "empty"
        yield ReadIssue("aside", reason, position, detail=f"{found.attachments} attachments")
        return
    if found.attachments:
        yield ReadIssue("changed", "attachments_left_out", position, found.attachments)
    if found.odd:
        yield ReadIssue(
            "changed", "malformed_message", position, found.odd.total(), detail=", ".join(sorted(found.odd))
        )
    yield ExtractedText("\n\n".join(filter(None, (head, body))), position)


def _head(message: EmailMessage) -> str:
    """`Subject: ...` and `Date: ...`, what there is of them."""
    lines = []
    for name in ("Subject", "Date"):
        try:
            value = str(message.get(name, ""))
        except _BROKEN:  # the parser of a header gives up on some that people send
            continue
        value = " ".join(without_surrogates(value)[0].split())
        lines += [f"{name}: {value}"] if value else []
    return "\n".join(lines)


def _collect(part: EmailMessage, found: _Found, depth: int) -> None:
    """Add the texts of a part and of those in it."""
    found.parts += 1
    if depth > _MOST_DEPTH or found.parts > _MOST_PARTS:
        found.odd["too_many_parts"] += 1
        return
    found.odd.update(type(defect).__name__ for defect in part.defects)
    kind = part.get_content_type()
    inner = (
        [each for each in part.get_payload() if isinstance(each, EmailMessage)] if part.is_multipart() else []
    )
    if kind == "message/rfc822" and inner:
        found.texts += filter(None, [_head(inner[0])])
        _collect(inner[0], found, depth + 1)
    elif kind == "multipart/alternative" and inner:
        _collect(_best(inner), found, depth + 1)
    elif inner:
        for each in inner:
            _collect(each, found, depth + 1)
    elif part.get_content_disposition() == "attachment" or not kind.startswith(("text/plain", "text/html")):
        found.attachments += not part.is_multipart()
    else:
        text = _text(part, found)
        found.texts += [text] if text.strip() else []


def _best(forms: list[EmailMessage]) -> EmailMessage:
    """Plain text that isn't empty; else the last form, which is meant to be the richest."""
    for form in forms:
        if form.get_content_type() == "text/plain" and _payload(form).strip():
            return form
    return forms[-1]


def _text(part: EmailMessage, found: _Found) -> str:
    """The part's text; a charset that can't be right is replaced by what the bytes look like."""
    data = _payload(part)
    charset = part.get_content_charset() or "utf-8"
    try:
        text = data.decode(charset)
    except (LookupError, UnicodeDecodeError):
        found.odd["wrong_charset"] += 1
        try:
            text = decode(data).text
        except Undecodable:
            found.odd["undecodable"] += 1
            return ""
    text = unix_lines(without_surrogates(text)[0]).replace("\x00", "")
    return (plain_text(text) if part.get_content_type() == "text/html" else text).strip("\n")


def _payload(part: EmailMessage) -> bytes:
    """The part's bytes, base64 and quoted-printable undone."""
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""
