"""A web server's answer, as a crawler stored it -> what it carries, unpacked.

in:  the bytes of an HTTP response
out: Payload: its status, media type, charset and bytes; what the headers promise and the bytes aren't is passed over

Crawlers differ in what they store: Common Crawl undoes `chunked` and `gzip` and says so in other headers, others
leave them in, some undo them and keep the header. So a header is believed if the bytes agree.
"""

import io
import re
import zlib
from dataclasses import dataclass

from groundup.text.ingest.formats._headers import fields
from groundup.text.ingest.formats.decompress import DecompressedFile, packing
from groundup.text.ingest.types import Options, ReadIssue

_HEAD_END = re.compile(rb"\r?\n\r?\n")
_CHUNK_SIZE = re.compile(rb"[ \t]*([0-9a-fA-F]{1,8})[ \t]*(;[^\n]*)?\r?\n")
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.IGNORECASE)
_PACKINGS = {"gzip": "gzip", "x-gzip": "gzip", "zstd": "zstd", "br": "brotli"}
_STEP = 1 << 16


@dataclass(frozen=True, slots=True)
class Payload:
    """A document as it was sent. `status` is 0 if it came without one; `note` says what is wrong with `body`."""

    body: bytes
    kind: str = ""
    charset: str = ""
    status: int = 0
    note: ReadIssue | None = None


def payload(content_type: str, body: bytes, status: int = 0, note: ReadIssue | None = None) -> Payload:
    """`body`, and what a Content-Type header says of it: `text/html; charset=utf-8`."""
    charset = _CHARSET.search(content_type)
    kind = content_type.partition(";")[0].strip().lower()
    return Payload(body, kind, charset[1] if charset else "", status, note)


def response(data: bytes, options: Options) -> Payload:
    """The payload of an HTTP response; all of `data`, of a type not known, if it isn't one."""
    if not data.startswith(b"HTTP/"):
        return Payload(data)
    end = _HEAD_END.search(data)
    headers = fields(data[: end.start()] if end else data)
    body = data[end.end() :] if end else b""
    code = data[:64].split(b"\n")[0].split()[1:2]
    status = int(code[0]) if code and code[0].isdigit() else 0
    note = None
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body, note = _unchunked(body)
    for packed in reversed(headers.get("content-encoding", "").lower().split(",")):
        body, wrong = _unpacked(body, packed.strip(), options)
        note = wrong or note
    return payload(headers.get("content-type", ""), body, status, note)


def _unchunked(data: bytes) -> tuple[bytes, ReadIssue | None]:
    """Chunks joined; as it is if the first one isn't one, with what is left over if a later one isn't."""
    pieces: list[bytes] = []
    at = 0
    while head := _CHUNK_SIZE.match(data, at):
        size = int(head[1], 16)
        if not size:
            return b"".join(pieces), None
        pieces.append(data[head.end() : head.end() + size])
        at = head.end() + size
        at += 2 if data.startswith(b"\r\n", at) else data.startswith(b"\n", at)
    if not pieces:
        return data, None
    return b"".join([*pieces, data[at:]]), ReadIssue(
        "changed", "damaged_chunks", value=at, threshold=len(data)
    )


def _unpacked(data: bytes, encoding: str, options: Options) -> tuple[bytes, ReadIssue | None]:
    """What a Content-Encoding unpacks to, or `data` if it isn't packed so. A note that is "aside" ends it."""
    if encoding == "deflate":
        return _inflated(data, options)
    kind = _PACKINGS.get(encoding, "")
    if not kind or (kind != "brotli" and packing(data[:16]) != kind):
        return data, None
    stream, out = DecompressedFile(io.BytesIO(data), kind, options.expansion), bytearray()
    while len(out) <= options.file_bytes and (piece := stream.read(_STEP)):
        out += piece
    if len(out) > options.file_bytes:
        return b"", ReadIssue(
            "aside", "too_large", value=len(out), threshold=options.file_bytes, detail=encoding
        )
    problem = stream.problem
    if problem and problem.reason == "expands_too_much":
        return b"", problem
    if problem and not out:
        return data, None
    return bytes(out), ReadIssue("changed", problem.reason, value=problem.value) if problem else None


def _inflated(data: bytes, options: Options) -> tuple[bytes, ReadIssue | None]:
    """`deflate`, which half the servers take for zlib's format and half for the bare stream in it."""
    most = min(options.file_bytes, max(1 << 20, int(len(data) * options.expansion)))
    for bits in (zlib.MAX_WBITS, -zlib.MAX_WBITS):
        stream = zlib.decompressobj(bits)
        try:
            out = stream.decompress(data, most + 1)
        except zlib.error:
            continue
        if len(out) > most:
            return b"", ReadIssue(
                "aside", "expands_too_much", value=len(out), threshold=most, detail="deflate"
            )
        return out, None if stream.eof else ReadIssue("changed", "damaged_deflate", value=len(out))
    return data, None
