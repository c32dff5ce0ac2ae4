"""E-mail -> one document per message: single messages (eml) and mailboxes (mbox), which are read as a stream.

in:  a message, or messages each after a line that begins with `From `
out: Subject and Date, then the text; quoted lines (`>`) are kept

Other headers, sender and recipients among them, are not read. Of multipart/alternative the plain text is used, else
the HTML as text. Attachments are counted and left out; forwarded messages belong to the message that contains them.
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
from groundup.text.ingest.formats.plain import document
from groundup.text.ingest.types import ExtractedText, ReadIssue, ReadOptions

_LINE = 1 << 16
_SEPARATOR = re.compile(rb"From .*\d\d:\d\d.*\d{4}")
"""`From someone Thu Jan  1 00:00:00 1970`: the time tells it from a sentence that begins with From."""
_QUOTED_SEPARATOR = re.compile(rb"^>(>*From )", re.MULTILINE)
_MAX_PARTS, _MAX_DEPTH = 1000, 32
_MAX_BOUNDARIES = 20_000
"""Lines that begin with `--` of a message with parts: each may begin one, which the parser takes 0.4 ms for."""
_CONTAINER = re.compile(rb"^content-type:\s*(multipart|message)/", re.IGNORECASE | re.MULTILINE)
_MAX_HEADER_CHARS = 4096
_MAX_BYTES, _MAX_LINES = 64 << 20, 4_000_000
"""Of one message, which is held in memory several times, and as lines; a smaller `max_file_bytes` limits it too."""
_MAX_WORK = 20_000_000
"""Lines times nested parts: the parser checks every line against each open part. At the limit it takes seconds."""
_BROKEN = (MessageError, ValueError, LookupError, AttributeError, TypeError, IndexError, RecursionError,
           OverflowError, binascii.Error)  # fmt: skip
"""Exceptions that the standard library's parser raises on malformed mail, besides its own errors."""


class _BoundedPolicy(email.policy.EmailPolicy):
    """Cuts long header fields: the parser's time and memory grow with the square of their length."""

    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        """(name, value) of a field, whose lines are joined."""
        kept = "".join(sourcelines)[:_MAX_HEADER_CHARS]
        return super().header_source_parse(kept.splitlines(keepends=True))


_POLICY = _BoundedPolicy()


def read(
    path: str, file: BinaryIO, options: ReadOptions, skip: int = 0
) -> Iterator[ExtractedText | ReadIssue]:
    """A single message, or the messages of an mbox after the first `skip`, at positions "1", "2" ..."""
    start, limit = file.read(5), min(options.max_file_bytes, _MAX_BYTES)
    file.seek(0)
    if start == b"From ":
        for number, data in _messages(file, limit, skip):
            if isinstance(data, int):
                yield ReadIssue("rejected", "too_large", str(number), data, limit)
            else:
                yield from _document(_QUOTED_SEPARATOR.sub(rb"\1", data), str(number), options)
    else:
        data = file.read(limit + 1)
        if len(data) > limit:
            yield ReadIssue("rejected", "too_large", value=file.seek(0, 2), threshold=limit)
        else:
            yield from _document(data, "", options)


def _messages(file: BinaryIO, max_bytes: int, skip: int) -> Iterator[tuple[int, bytes | int]]:
    """(number, message) for each message after the first `skip`; its size instead if it is too large."""
    number = size = 0
    message = bytearray()
    at_start, after_empty = True, True
    while line := file.readline(_LINE):
        if at_start and after_empty and _SEPARATOR.match(line):
            if number > skip:
                yield number, bytes(message) if size <= max_bytes else size
            number, size = number + 1, 0
            message.clear()
        else:
            number = number or 1  # begins with `From ` but has no valid separator
            size += len(line)
            if size > max_bytes:
                message.clear()
            elif number > skip:
                message += line
        after_empty = at_start and line in (b"\n", b"\r\n")
        at_start = line.endswith(b"\n")
    if number > skip:
        yield number, bytes(message) if size <= max_bytes else size


@dataclass
class _MessageTexts:
    """Texts of a message in order, with counts of attachments, parts and defects."""

    texts: list[str] = field(default_factory=list)
    attachments: int = 0
    parts: int = 0
    defects: Counter[str] = field(default_factory=Counter)


def _document(data: bytes, position: str, options: ReadOptions) -> Iterator[ExtractedText | ReadIssue]:
    if not data.strip():
        yield ReadIssue("rejected", "empty", position)
        return
    message_texts = _MessageTexts()
    lines = data.count(b"\n")
    if lines > _MAX_LINES:
        yield ReadIssue("rejected", "too_costly", position, lines, _MAX_LINES, "lines")
        return
    containers = sum(1 for _ in _CONTAINER.finditer(data))
    boundaries = data.count(b"\n--") if containers else 0
    if boundaries > _MAX_BOUNDARIES:
        yield ReadIssue(
            "rejected", "too_costly", position, boundaries, _MAX_BOUNDARIES, "boundaries of parts"
        )
        return
    work = lines * containers
    if work > _MAX_WORK:
        yield ReadIssue("rejected", "too_costly", position, work, _MAX_WORK, "lines times nested parts")
        return
    try:
        message = email.message_from_bytes(data, policy=_POLICY)
        assert isinstance(message, EmailMessage)
        head = _head(message)
        _collect(message, message_texts, 0)
    except _BROKEN as error:
        yield ReadIssue(
            "rejected", "malformed_message", position, detail=f"{type(error).__name__}: {error}"[:300]
        )
        return
    body = "\n\n".join(message_texts.texts)
    if not body.strip():
        reason = "binary" if message_texts.defects["undecodable"] else "empty"
        yield ReadIssue(
            "rejected", reason, position, detail=f"{message_texts.attachments} attachments, no text"
        )
        return
    if message_texts.attachments:
        yield ReadIssue("changed", "attachments_left_out", position, message_texts.attachments)
    if message_texts.defects:
        yield ReadIssue(
            "changed",
            "malformed_message",
            position,
            message_texts.defects.total(),
            detail=", ".join(sorted(message_texts.defects)),
        )
    yield from document("\n\n".join(filter(None, (head, body))), position, options)


def _head(message: EmailMessage) -> str:
    """The `Subject: ...` and `Date: ...` lines that the message has."""
    lines = []
    for name in ("Subject", "Date"):
        try:
            value = str(message.get(name, ""))
        except _BROKEN:  # the header parser fails on some malformed values
            continue
        value = " ".join(without_surrogates(value)[0].split())
        lines += [f"{name}: {value}"] if value else []
    return "\n".join(lines)


def _collect(part: EmailMessage, message_texts: _MessageTexts, depth: int) -> None:
    """Collects the texts of a part and its nested parts."""
    message_texts.parts += 1
    if depth > _MAX_DEPTH or message_texts.parts > _MAX_PARTS:
        message_texts.defects["too_many_parts"] += 1
        return
    message_texts.defects.update(type(defect).__name__ for defect in part.defects)
    kind = part.get_content_type()
    inner = (
        [each for each in part.get_payload() if isinstance(each, EmailMessage)] if part.is_multipart() else []
    )
    if kind == "message/rfc822" and inner:
        message_texts.texts += filter(None, [_head(inner[0])])
        _collect(inner[0], message_texts, depth + 1)
    elif kind == "multipart/alternative" and inner:
        _collect(_best(inner), message_texts, depth + 1)
    elif inner:
        for each in inner:
            _collect(each, message_texts, depth + 1)
    elif part.get_content_disposition() == "attachment" or not kind.startswith(("text/plain", "text/html")):
        message_texts.attachments += not part.is_multipart()
    else:
        text = _text(part, message_texts)
        message_texts.texts += [text] if text.strip() else []


def _best(forms: list[EmailMessage]) -> EmailMessage:
    """Non-empty plain text, else the last alternative, which is the richest by convention."""
    for form in forms:
        if form.get_content_type() == "text/plain" and _payload(form).strip():
            return form
    return forms[-1]


def _text(part: EmailMessage, message_texts: _MessageTexts) -> str:
    """Text of a part; if its declared charset fails, the charset is detected."""
    data = _payload(part)
    charset = part.get_content_charset() or "utf-8"
    try:
        text = data.decode(charset)
    except (LookupError, UnicodeDecodeError):
        message_texts.defects["wrong_charset"] += 1
        try:
            text = decode(data).text
        except Undecodable:
            message_texts.defects["undecodable"] += 1
            return ""
    text = unix_lines(without_surrogates(text)[0]).replace("\x00", "")
    return (plain_text(text) if part.get_content_type() == "text/html" else text).strip("\n")


def _payload(part: EmailMessage) -> bytes:
    """Decoded bytes of a part (base64, quoted-printable)."""
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""
