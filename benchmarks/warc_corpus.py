"""A crawl for the benchmark of whole curation: web pages in WARC files, with near-duplicates among them.

in:  real pages (`web/html` of a data folder), the HTML documentation of this machine, prose of the data
     folder and plain texts of this machine in a page with navigation and footer
out: FOLDER/warc/*.warc.gz, one gzip member per record, as Common Crawl writes them; how many megabytes of HTML

    .venv/bin/python benchmarks/warc_corpus.py FOLDER --megabytes 100 --data ../shared/data
"""

import argparse
import gzip
import html
import random
import re
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from planted_corpus import ROOTS, texts_below

FILES = 8
LEAST_CHARS = 1000
"""Shorter texts (there are many in sets of instructions) make no page."""
PAGE = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body {{ margin: 0 }} nav a {{ padding: 4px }}</style><script>window.dataLayer = [];</script></head><body>
<nav><ul><li><a href="/">Home</a></li><li><a href="/news">News</a></li><li><a href="/about">About us</a></li></ul></nav>
<div id="content"><article><h1>{title}</h1>{body}</article></div>
<aside><h3>Related</h3><ul><li><a href="/1">Ten things</a></li><li><a href="/2">Subscribe now</a></li></ul></aside>
<footer><p>Copyright. All rights reserved. <a href="/privacy">Privacy policy</a></p></footer></body></html>"""


def pages(data: Path, draw: random.Random) -> Iterator[bytes]:
    """Real pages, then prose in the template, then documentation; every tenth comes again with a word changed."""
    found = [*_stored(data), *_documentation()]
    draw.shuffle(found)
    for page in found:
        yield page
        if draw.random() < 0.1:
            yield page.replace(b" the ", b" this ", 2)
    for text in chain(texts_below((), data, draw), texts_below(ROOTS, None, draw)):
        if len(text) < LEAST_CHARS:
            continue
        page = _page(text)
        yield page
        if draw.random() < 0.1:
            yield page.replace(b" the ", b" this ", 2)


def build(folder: Path, megabytes: int, data: Path) -> float:
    """Write the WARC files; the megabytes of HTML in them."""
    (folder / "warc").mkdir(parents=True, exist_ok=True)
    draw = random.Random(1)
    size = 0
    with ExitStack() as stack:
        files = [stack.enter_context((folder / "warc" / f"{n:02d}.warc.gz").open("wb")) for n in range(FILES)]
        for number, page in enumerate(pages(data, draw)):
            files[number % FILES].write(gzip.compress(record(number, page), 6))
            size += len(page)
            if size >= megabytes * 1_000_000:
                break
    return size / 1e6


def record(number: int, page: bytes) -> bytes:
    """A response record."""
    http = f"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {len(page)}\r\n\r\n"
    block = http.encode() + page
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:{uuid.UUID(int=number)}>\r\n"
        f"WARC-Date: 2026-01-01T00:00:00Z\r\nWARC-Target-URI: https://site{number % 997}.example/{number}\r\n"
        f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(block)}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"


def _stored(data: Path) -> Iterator[bytes]:
    for file in sorted((data / "web" / "html").rglob("*.html.gz")):
        yield gzip.decompress(file.read_bytes())


def _documentation() -> Iterator[bytes]:
    for root in (Path("/usr/share/doc"), Path(sys.prefix), Path(sys.base_prefix)):
        for file in sorted(root.rglob("*.html")):
            if file.is_file() and 500 < file.stat().st_size < 500_000:
                yield file.read_bytes()


def _page(text: str) -> bytes:
    title = html.escape(re.sub(r"\s+", " ", text[:60]))
    body = "".join(f"<p>{html.escape(part)}</p>\n" for part in re.split(r"\n\s*\n", text))
    return PAGE.format(title=title, body=body).encode()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--data", type=Path, required=True)
    said = parser.parse_args()
    print(f"{build(said.folder, said.megabytes, said.data):.1f} MB of HTML in {said.folder / 'warc'}")
