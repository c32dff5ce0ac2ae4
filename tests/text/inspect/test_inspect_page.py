"""The page of an inspection in a real browser, without a window: what it shows, and that it asks for nothing."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from inspect_helpers import DocumentFate, write_corpus_fixture
from test_inspect import ASIDE, HITS, sample_documents

from groundup.text.documents import RejectsLogEntry
from groundup.text.inspect.collect import collect
from groundup.text.inspect.corpus import Corpus
from groundup.text.inspect.page import write_page

playwright = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
HOSTILE = (
    "<script>window.hacked = 1</script>",
    "</script><img src=x onerror='window.hacked = 1'>",
    '"><svg onload="window.hacked = 1"><a href="javascript:window.hacked = 1">',
    "<!--<script>window.hacked = 1</script>",
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")


def hostile_world() -> list[DocumentFate]:
    """Documents that would run a script from wherever the page would let them."""
    return [
        DocumentFate(
            f"{0xA000 + number:016x}", f"{attack} zebra {number}",
            f"{attack}: {attack}" if number % 2 else "kept", attack, f"{attack}/{number}", attack, attack,
            f"{attack} quagga" if not number % 2 else None,
            {"gopher_quality.words": 60.0}, 1.0, 2.0, (f"{1:016x}", 0.9, attack) if number % 2 else None,
        )
        for number, attack in enumerate(HOSTILE * 2)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    attack = HOSTILE[1]
    aside = [
        *ASIDE,
        RejectsLogEntry("e" * 16, attack, attack, "ingest", "rejected", attack, None, None, attack),
    ]
    hits = [*HITS, dict.fromkeys(("item", "task", "text"), attack) | {"id": f"{0xA000:016x}", "overlap": 13}]
    write_page(
        collect(write_corpus_fixture(folder, [*sample_documents(), *hostile_world()], aside, hits), attack),
        folder / "page.html",
    )
    return folder / "page.html"


class Visit:
    """An open page, and what it said and asked for."""

    def __init__(self, browser: "playwright.Browser", path: Path, **options: object) -> None:
        self.page = browser.new_context(**options).new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())

    def text(self, selector: str) -> str:
        """What a reader sees there."""
        return str(self.page.locator(selector).first.inner_text())


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: "playwright.Browser", written: Path) -> Iterator[Visit]:
    visit = Visit(browser, written)
    yield visit
    assert visit.said == []
    assert visit.asked == [written.as_uri()]
    assert visit.page.evaluate("window.hacked") is None
    visit.page.context.close()


def test_the_page_opens_with_its_figures_and_its_sums(visit: Visit) -> None:
    names = visit.page.locator("main > section > h2").all_inner_texts()
    assert len(names) == 10 and names[0] == "From read to kept"
    assert "308 read = " in visit.text(".checks") and visit.page.locator(".checks .fails").count() == 0
    assert visit.page.locator("figure svg line.limit").count() >= 2
    before = visit.text("#Funnel table")
    visit.page.get_by_role("button", name="bytes").click()
    assert visit.text("#Funnel table") != before and "kB" in visit.text("#Funnel table")


def test_a_search_finds_a_document_and_shows_its_history(visit: Visit) -> None:
    visit.page.keyboard.press("/")
    visit.page.keyboard.type("PAGE/299.html")
    assert "1 of the" in visit.text("#found")
    visit.page.keyboard.press("Tab")
    visit.page.keyboard.press("Enter")
    assert "page/299.html" in visit.text("dialog h2") and f"{299:016x}" in visit.text("dialog")
    visit.page.keyboard.press("Escape")
    assert not visit.page.locator("dialog").is_visible()
    visit.page.keyboard.press("/")
    visit.page.fill("#query", "too_few_words")
    visit.page.locator("#results button").first.click()
    assert "dropped: too few words" in visit.text("dialog .history") and "Text number" in visit.text(
        "dialog .text"
    )
    assert "This page has all 308 documents" in visit.text("#foot")


def test_before_curation_there_is_a_page_too(browser: "playwright.Browser", written: Path) -> None:
    page = written.with_name("raw.html")
    write_page(collect(Corpus(written.parent / "ingest"), "raw"), page)
    visit = Visit(browser, page)
    assert "308 documents were read from 310 files" in visit.text("#head")
    visit.page.fill("#query", "window.hacked")
    visit.page.locator("#results button").first.click()
    assert "window.hacked" in visit.text("dialog .text")
    assert (
        visit.said == [] and visit.asked == [page.as_uri()] and visit.page.evaluate("window.hacked") is None
    )
    visit.page.context.close()


def test_where_not_every_text_is_in_the_page_it_says_so(browser: "playwright.Browser", written: Path) -> None:
    page = written.with_name("few.html")
    write_page(
        collect(Corpus(written.parent / "ingest", written.parent / "curate"), per_reason=1, drawn=10), page
    )
    visit = Visit(browser, page)
    assert "of 10 from all 308" in visit.text("#foot")
    left = visit.page.evaluate("report.index.find(([id]) => !embedded.has(id))")
    visit.page.fill("#query", left[1])
    visit.page.locator("#results button").last.click()
    assert "groundup inspect --document" in visit.text("dialog .note")
    assert visit.said == []
    visit.page.context.close()


def test_a_sample_leads_to_its_whole_history_and_a_link_leads_back_to_it(visit: Visit, written: Path) -> None:
    visit.page.locator("#Reasons a", has_text="too few words").click()
    card = visit.page.locator("details[open] .card").first
    assert "words" in card.inner_text()
    card.get_by_role("button").click()
    said = visit.text("dialog")
    assert "dropped: too few words" in said and "dedup: not reached" in said and "Text number" in said
    address = visit.page.url
    assert "#document=" in address
    visit.page.reload()
    assert visit.text("dialog") == said
    visit.asked[:] = visit.asked[:1]


def test_duplicates_stand_side_by_side_with_their_differences_marked(visit: Visit) -> None:
    pair = visit.page.locator("#Duplicates .pair").first
    assert pair.locator(".text").count() == 2
    assert pair.locator("del").count() and pair.locator("ins").count()


def test_changes_show_what_was_taken_out_and_put_in(visit: Visit) -> None:
    group = visit.page.locator("details.group", has_text="redacted").first
    group.locator("summary").click()
    group.locator("ins", has_text="<EMAIL>").first.wait_for()


def test_hostile_documents_are_text_wherever_they_stand(visit: Visit) -> None:
    visit.page.evaluate("document.querySelectorAll('details').forEach(group => { group.open = true; })")
    visit.page.fill("#query", "window.hacked")
    assert visit.page.locator("#results button").count() == len(hostile_world()) + 1  # and the rejected file
    for number in range(len(hostile_world())):
        visit.page.evaluate(f"location.hash = '#document={0xA000 + number:016x}'")
        visit.page.wait_for_function(
            f"document.querySelector('dialog').innerText.includes('{0xA000 + number:016x}')"
        )
        assert HOSTILE[number % len(HOSTILE)] in visit.text("dialog")
    assert visit.page.locator("img, iframe, svg a, main a[href^=javascript]").count() == 0
    assert visit.page.locator("script").count() == 2


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (360, "dark"), (1400, "dark")])
def test_it_fits_a_phone_and_follows_the_theme(
    browser: "playwright.Browser", written: Path, width: int, scheme: str
) -> None:
    visit = Visit(browser, written, viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    colour = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (colour == "rgb(253, 252, 249)") == (scheme == "light")
    assert visit.said == []
    visit.page.context.close()
