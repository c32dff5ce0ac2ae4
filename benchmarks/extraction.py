"""Main text extraction of web pages: groundup with both extractors, the libraries alone, and published outputs.

in:  `web/html` of a data folder: the article-extraction benchmark (181 news pages with their articles, and the output
     of known extractors) and pages of trafilatura's own evaluation (300, with segments that belong in and that don't)
out: a table per benchmark, in Markdown

    .venv/bin/python benchmarks/extraction.py --data ../shared/data/web

Articles: shingles of 4 words as multisets; precision and recall are means over pages, F1 is their harmonic mean, as in
https://github.com/scrapinghub/article-extraction-benchmark; the published outputs are scored by the same code and must
come to the published figures. Segments: a segment is found if the text has it, white space aside.
"""

import argparse
import gzip
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import trafilatura
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import detect_encoding
from resiliparse.parse.html import HTMLTree

from groundup.text.ingest import extract
from groundup.text.ingest.decode import Undecodable
from groundup.text.ingest.types import Extractor

DATA = Path(__file__).parents[2] / "shared" / "data" / "web"
PUBLISHED = {  # F1, precision, recall of the version whose output is in the folder
    "trafilatura": ("trafilatura 2.0.0", 0.958, 0.938, 0.978),
    "readability_js": ("readability.js 0.6.0", 0.947, 0.914, 0.982),
    "readability": ("readability-lxml 0.8.4.1", 0.922, 0.913, 0.931),
    "justext": ("jusText 3.0.2", 0.804, 0.858, 0.756),
    "beautifulsoup": ("BeautifulSoup 4.13.5, all text", 0.665, 0.499, 0.994),
}
LIBRARY_OF = {"ours: resiliparse": "resiliparse", "ours: trafilatura": "trafilatura"}
MOST_BEHIND = 0.02

Extract = Callable[[bytes], str]
Scores = tuple[float, float, float]


def ours(extractor: Extractor) -> Extract:
    """What a WARC record or an HTML file goes through."""

    def run(page: bytes) -> str:
        try:
            return extract.main_text(page, extractor).text
        except Undecodable:
            return ""

    return run


def without_asking(page: bytes) -> str:
    """Ours, with resiliparse alone also where it finds next to nothing."""
    most, extract.MOST_TAGS_FOR_ASKING = extract.MOST_TAGS_FOR_ASKING, -1
    try:
        return ours("resiliparse")(page)
    finally:
        extract.MOST_TAGS_FOR_ASKING = most


def resiliparse(page: bytes, **options: Any) -> str:
    """The library, as its manual shows it."""
    tree = HTMLTree.parse_from_bytes(page, detect_encoding(page) or "utf-8")
    return str(extract_plain_text(tree, main_content=True, **options))


def careful(page: bytes, **options: Any) -> str:
    """The other library; it decodes by itself."""
    return trafilatura.extract(page, **options) or ""


EXTRACTORS: dict[str, Extract] = {
    "ours: resiliparse": ours("resiliparse"),
    "ours: resiliparse, never asking trafilatura": without_asking,
    "ours: trafilatura": ours("trafilatura"),
    "resiliparse": resiliparse,
    "resiliparse, no comments": lambda page: resiliparse(page, comments=False),
    "trafilatura": careful,
    "trafilatura, as ours calls it": lambda page: careful(page, favor_precision=True, include_comments=False),
}


def shingle_scores(truth: dict[str, str], found: dict[str, str]) -> Scores:
    """F1, precision and recall as the benchmark's own script has them: a page without text has no precision."""
    precisions, recalls = [], []
    for page, text in truth.items():
        wanted, got = _shingles(text), _shingles(found[page])
        both = (wanted & got).total()
        recalls.append(both / wanted.total())
        if got:
            precisions.append(both / got.total())
    return _with_f1(sum(precisions) / len(precisions), sum(recalls) / len(recalls))


def _shingles(text: str, size: int = 4) -> Counter[tuple[str, ...]]:
    words = re.findall(r"\w+", text)
    return Counter(
        tuple(words[at : at + size]) for at in range(max(min(1, len(words)), len(words) - size + 1))
    )


def segment_scores(truth: dict[str, tuple[list[str], list[str]]], found: dict[str, str]) -> Scores:
    """F1, precision and recall over all segments: found and wanted, found and not wanted, wanted and not found."""
    right = wrong = missed = 0
    for page, (wanted, unwanted) in truth.items():
        text = _squeezed(found[page])
        right += sum(_squeezed(segment) in text for segment in wanted)
        missed += sum(_squeezed(segment) not in text for segment in wanted)
        wrong += sum(_squeezed(segment) in text for segment in unwanted)
    return _with_f1(right / (right + wrong), right / (right + missed))


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _with_f1(precision: float, recall: float) -> Scores:
    return 2 * precision * recall / (precision + recall), precision, recall


def measured(
    pages: dict[str, bytes], score: Callable[[dict[str, str]], Scores]
) -> dict[str, tuple[Scores, float]]:
    """Per extractor its scores and its milliseconds per page, after one page to warm up."""
    results = {}
    for name, run in EXTRACTORS.items():
        run(next(iter(pages.values())))
        began = time.perf_counter()
        found = {page: run(data) for page, data in pages.items()}
        results[name] = score(found), (time.perf_counter() - began) * 1000 / len(pages)
    return results


def print_table(head: str, results: dict[str, tuple[Scores, float]], rows: Iterable[str] = ()) -> None:
    """Our rows, then `rows` as they are."""
    print(f"\n{head}\n\n| | F1 | precision | recall | ms per page |\n|---|---|---|---|---|")
    for name, (scores, took) in results.items():
        print(f"| {name} | " + " | ".join(f"{score:.3f}" for score in scores) + f" | {took:.1f} |")
    for row in rows:
        print(row)


def articles(folder: Path) -> dict[str, tuple[Scores, float]]:
    """The article-extraction benchmark."""
    said = json.loads((folder / "ground-truth.json").read_text(encoding="utf-8"))
    truth = {page: about["articleBody"] for page, about in said.items()}
    pages = {page: gzip.decompress((folder / "html" / f"{page}.html.gz").read_bytes()) for page in truth}
    results = measured(pages, lambda found: shingle_scores(truth, found))
    rows = []
    for name, (version, *published) in PUBLISHED.items():
        kept = json.loads(gzip.decompress((folder / "reference_output" / f"{name}.json.gz").read_bytes()))
        kept = kept.get("output", kept)
        again = shingle_scores(truth, {page: kept[page]["articleBody"] for page in truth})
        shown = " | ".join(f"{a:.3f} ({b:.3f})" for a, b in zip(again, published, strict=True))
        rows.append(f"| {version}: its output scored here (published) | {shown} | |")
    print_table(f"News articles, {len(truth)} pages", results, rows)
    return results


def segments(folder: Path) -> dict[str, tuple[Scores, float]]:
    """Pages of trafilatura's evaluation."""
    lines = (folder / "ground_truth.jsonl").read_text(encoding="utf-8").splitlines()
    truth = {said["id"]: (said["with"], said["without"]) for said in map(json.loads, lines)}
    pages = {page: gzip.decompress((folder / "pages" / f"{page}.html.gz").read_bytes()) for page in truth}
    results = measured(pages, lambda found: segment_scores(truth, found))
    print_table(f"Pages of all kinds, {len(truth)}, by segments", results)
    return results


def main() -> int:
    """Print both tables; 1 if ours is further behind its library than it may be."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA, help="a folder with html/aeb and html/trafilatura")
    folder = parser.parse_args().data / "html"
    if not (folder / "aeb" / "ground-truth.json").exists():
        print(f"No benchmark pages in {folder}: say with --data where `web` is.", file=sys.stderr)
        return 2
    behind = 0
    for results in (articles(folder / "aeb"), segments(folder / "trafilatura")):
        for name, library in LIBRARY_OF.items():
            best = max(scores[0] for row, (scores, _) in results.items() if row.startswith(library))
            gap = best - results[name][0][0]
            behind += gap > MOST_BEHIND
            print(f"\n{name}: F1 {-gap:+.3f} against the better {library} by itself")
    return int(behind > 0)


if __name__ == "__main__":
    sys.exit(main())
