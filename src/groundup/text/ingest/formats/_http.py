"""HTTP response as stored by a crawler -> decoded payload.

in:  the bytes of an HTTP response
out: Payload: status, media type, charset and decoded body

Crawlers differ in what they store: Common Crawl decodes `chunked` and `gzip` and renames the headers, others store the
encoded body, some decode it and keep the header. A transfer or content encoding is applied only if the bytes match it.
"""

import io
import re
import zlib
from dataclasses import dataclass, replace

from groundup.text.ingest.formats._headers import parse_headers
from groundup.text.ingest.formats.decompress import DecompressedFile, compression
from groundup.text.ingest.types import ReadIssue, ReadOptions

_HEAD_END = re.compile(rb"\r?\n\r?\n")
_CHUNK_SIZE = re.compile(rb"[ \t]*([0-9a-fA-F]{1,8})[ \t]*(;[^\n]*)?\r?\n")
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.IGNORECASE)
_PACKINGS = {"gzip": "gzip", "x-gzip": "gzip", "zstd": "zstd", "br": "brotli"}
_STEP = 1 << 16


@dataclass(frozen=True, slots=True)
class Payload:
    """Decoded HTTP body. `status` is 0 if there is none; `issue` describes damage to `body`."""

    body: bytes
    media_type: str = ""
    charset: str = ""
    status: int = 0
    issue: ReadIssue | None = None


def payload(content_type: str, body: bytes, status: int = 0, note: ReadIssue | None = None) -> Payload:
    """Payload with media type and charset parsed from a Content-Type header (`text/html; charset=utf-8`)."""
    charset = _CHARSET.search(content_type)
    kind = content_type.partition(";")[0].strip().lower()
    return Payload(body, kind, charset[1] if charset else "", status, note)


def response(data: bytes, options: ReadOptions) -> Payload:
    """Payload of an HTTP response; all of `data`, without a media type, if it is no HTTP response."""
    if not data.startswith(b"HTTP/"):
        return Payload(data)
    end = _HEAD_END.search(data)
    headers = parse_headers(data[: end.start()] if end else data)
    body = data[end.end() :] if end else b""
    code = data[:64].split(b"\n")[0].split()[1:2]
    status = int(code[0]) if code and code[0].isdigit() else 0
    note = None
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body, note = _dechunk(body)
    for packed in reversed(headers.get("content-encoding", "").lower().split(",")):
        body, issue = _decompress(body, packed.strip(), options)
        note = issue or note
    return payload(headers.get("content-type", ""), body, status, note)


def _dechunk(data: bytes) -> tuple[bytes, ReadIssue | None]:
    """Joined chunks; `data` itself if the first chunk is invalid, with the remaining bytes if a later one is."""
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


def _decompress(data: bytes, encoding: str, options: ReadOptions) -> tuple[bytes, ReadIssue | None]:
    """Body after removing one Content-Encoding, or `data` itself if it isn't encoded so."""
    if encoding == "deflate":
        return _inflate(data, options)
    kind = _PACKINGS.get(encoding, "")
    if not kind or (kind != "brotli" and compression(data[:16]) != kind):
        return data, None
    stream, unpacked = DecompressedFile(io.BytesIO(data), kind, options.max_expansion), bytearray()
    while len(unpacked) <= options.max_file_bytes and (piece := stream.read(_STEP)):
        unpacked += piece
    if len(unpacked) > options.max_file_bytes:
        return b"", ReadIssue(
            "rejected", "too_large", value=len(unpacked), threshold=options.max_file_bytes, detail=encoding
        )
    if stream.too_large:
        return b"", stream.issues[-1]
    if stream.issues and not unpacked:
        return data, None
    return bytes(unpacked), replace(stream.issues[0], outcome="changed") if stream.issues else None


def _inflate(data: bytes, options: ReadOptions) -> tuple[bytes, ReadIssue | None]:
    """Body after removing `deflate`, which servers use for both the zlib format and the raw deflate stream."""
    limit = min(options.max_file_bytes, max(1 << 20, int(len(data) * options.max_expansion)))
    for bits in (zlib.MAX_WBITS, -zlib.MAX_WBITS):
        stream = zlib.decompressobj(bits)
        try:
            inflated = stream.decompress(data, limit + 1)
        except zlib.error:
            continue
        if len(inflated) > limit:
            return b"", ReadIssue(
                "rejected", "expands_too_much", value=len(inflated), threshold=limit, detail="deflate"
            )
        return inflated, None if stream.eof else ReadIssue("changed", "damaged_deflate", value=len(inflated))
    return data, None
