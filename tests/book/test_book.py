"""The stage `book`: deterministic, self-contained, and safe for untrusted text."""

import json
import re
from dataclasses import fields, is_dataclass
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fake_run import BLUEPRINT, make_run

from groundup.book.book import Book, book
from groundup.book.chapters import book_content
from groundup.book.load_run import LoadedRun
from groundup.book.palette import PAPER
from groundup.book.render_html import html
from groundup.book.render_pdf import pdf
from groundup.core.progress import Reporter
from groundup.core.runtime import Runtime
from groundup.core.stage import Artifact, StageContext

HOSTILE = (
    " <script>alert(1)</script><img src=x onerror=alert(2)> #strong[x] $x^2$ *b* `c` \\u{41} @label <label> "
    "\x00\x07\x1b[31m \ud800 \u202eevil\u202c שלום 日本 🎉 " + "A" * 10_000
)
VOID = {"meta", "br", "img", "hr", "link", "input"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    return make_run(tmp_path_factory.mktemp("run"))


def write(folder: Path, artifacts: dict[str, Artifact], **recipe: str) -> tuple[str, bytes, dict[str, Any]]:
    context = StageContext(folder, Reporter(quiet=True))
    metrics = book(Book(name="stdlib", blueprint=BLUEPRINT, **recipe), Runtime(), context, artifacts)
    return (folder / "book.html").read_text(encoding="utf-8"), (folder / "book.pdf").read_bytes(), metrics


class PageParser(HTMLParser):
    """Checks that tags close in order; collects tags, attributes and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_same_artifacts_give_the_same_bytes(tmp_path: Path, run: dict[str, Artifact]) -> None:
    first = write(tmp_path / "a", run)
    second = write(tmp_path / "b", run)
    assert first == second
    assert first[2]["pages"] > 12
    assert first[2]["html_bytes"] == len(first[0].encode())
    assert first[2]["pdf_bytes"] == len(first[1])


def test_the_page_is_self_contained(tmp_path: Path, run: dict[str, Artifact]) -> None:
    page = write(tmp_path, run)[0]
    seen = PageParser(page)
    assert not seen.tags & {"script", "link", "img", "iframe", "object"}
    links = [value for name, value in seen.attributes if name in ("href", "src", "xlink:href")]
    assert links
    assert all(value is not None and value.startswith("#") for value in links)
    assert "url(http" not in page
    assert "@import" not in page


def test_every_id_occurs_once_and_every_link_has_a_target(tmp_path: Path, run: dict[str, Artifact]) -> None:
    seen = PageParser(write(tmp_path, run)[0])
    ids = [value for name, value in seen.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    links = {str(value)[1:] for name, value in seen.attributes if name in ("href", "xlink:href")}
    assert links <= set(ids)


def test_drawings_follow_the_readers_theme(tmp_path: Path, run: dict[str, Artifact]) -> None:
    page = write(tmp_path, run)[0]
    body = page[page.index("<body>") :]
    assert not [colour for colour in PAPER.values() if colour in body]
    assert "prefers-color-scheme:dark" in page


def test_a_stage_that_the_blueprint_lacks_has_no_chapter(tmp_path: Path) -> None:
    artifacts = make_run(tmp_path / "run", align=("finetune",))
    text = PageParser(write(tmp_path / "out", artifacts)[0]).text
    assert "Supervised fine-tuning" in text
    assert "Reward model" not in text
    assert "Reinforcement learning" not in text


def test_bare_manifests_are_enough_for_a_book(tmp_path: Path) -> None:
    artifacts = make_run(tmp_path / "run")
    for artifact in artifacts.values():
        for path in filter(Path.is_file, artifact.path.rglob("*")):
            if path.name not in ("manifest.json", "tokenizer.json", "tokenizer_config.json"):
                path.unlink()
        manifest = artifact.manifest() | {"metrics": {}}
        (artifact.path / "manifest.json").write_text(json.dumps(manifest))
    text = PageParser(write(tmp_path / "out", artifacts)[0]).text
    assert "not measured" in text
    assert "No curve was recorded." in text


def test_untrusted_text_is_never_parsed_as_markup(tmp_path: Path) -> None:
    artifacts = make_run(tmp_path / "run", hostile=HOSTILE)
    page, printed, _ = write(tmp_path / "out", artifacts, title="T" + HOSTILE[:200], author="<b>A</b>")
    seen = PageParser(page)
    assert "<script>alert(1)</script>" in seen.text
    assert not seen.tags & {"script", "img", "b"}
    assert not [char for char in page if char < " " and char != "\n"]
    assert "\u202e" not in page
    assert "\ufffd" in page
    assert printed.startswith(b"%PDF")


def test_html_and_pdf_contain_the_same_text(tmp_path: Path, run: dict[str, Artifact]) -> None:
    whole = book_content(LoadedRun(run), "stdlib", "An author", BLUEPRINT)
    page = html(whole)
    pdf(whole, tmp_path)
    printed = (tmp_path / "book.json").read_text(encoding="utf-8")
    plain = printed.replace("\\u200b", "").replace("\\u00a0", " ")
    there = json.dumps(json.loads(plain), ensure_ascii=False)
    for words in _strings(whole):
        assert escape(words) in page, words
        assert json.dumps(words, ensure_ascii=False)[1:-1] in there, words


def _strings(value: Any) -> list[str]:
    """All text of the book's content, without figures."""
    if is_dataclass(value):
        parts = [
            getattr(value, field.name)
            for field in fields(value)
            if field.name
            not in ("svg", "emblem", "name", "alt", "language", "align", "style", "role", "answer")
        ]
        return [word for part in parts for word in _strings(part)]
    if isinstance(value, tuple):
        return [word for part in value for word in _strings(part)]
    return [value] if isinstance(value, str) and value else []


def test_counts_are_those_of_the_manifests(tmp_path: Path, run: dict[str, Artifact]) -> None:
    text = re.sub(r"\s+", " ", PageParser(write(tmp_path, run)[0]).text)
    assert "628 with documents + 3 rejected = 631" in text
    assert "702 kept + 39 rejected = 741 read" in text
    assert "21 too few words + 12 exact duplicate + 6 repeated lines = 39" in text
    assert "3,150,211 train + 64,197 validation = 3,214,408; 0 lost" in text
    assert "688 train + 14 validation = 702 kept" in text
    assert "6,181 + 127 = 6,308" in text


def test_the_share_of_the_data_that_was_never_read_is_in_the_book(
    tmp_path: Path, run: dict[str, Artifact]
) -> None:
    text = " ".join(PageParser(write(tmp_path, run)[0]).text.split())
    assert "training sequences never read" in text
    assert "The training ended at its limit max_epochs." in text.replace("`", "")
    assert "It read its conversations 0.65 times; 35 % of them were never read." in text


def test_an_unknown_method_has_a_chapter_with_its_metrics(tmp_path: Path) -> None:
    artifacts = make_run(tmp_path / "run", align=("finetune",))
    path = artifacts["finetune"].path / "manifest.json"
    manifest = json.loads(path.read_text()) | {"stage": "noop_dpo", "metrics": {"margin": 0.25}}
    path.write_text(json.dumps(manifest))
    text = PageParser(write(tmp_path / "out", artifacts)[0]).text
    assert "Alignment: noop_dpo" in text
    assert "0.250" in text
    assert "pretrained and aligned with noop_dpo" in text
