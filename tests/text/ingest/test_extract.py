"""Main text of pages: what is kept readable, what is left out, and pages that are hard to read or hostile."""

import gzip
import json
import re
import time
from collections import Counter
from pathlib import Path

import pytest
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLTree

from groundup.text.ingest import extract
from groundup.text.ingest.extract import MOST_NESTED, MOST_TAGS, NoMainText, main_text
from groundup.text.ingest.formats.html import read_page as read_page
from groundup.text.ingest.types import ExtractedText, Extractor, ReadIssue, ReadOptions

PAGES = Path(__file__).parents[4] / "shared" / "data" / "web" / "html" / "aeb"
PROSE = "The keeper lit the lamp at dusk, and one by one the ships came home out of the dark. "
BOTH: tuple[Extractor, ...] = ("resiliparse", "trafilatura")
both = pytest.mark.parametrize("extractor", BOTH)


def page(inside: str, head: str = "") -> str:
    """A page with what most of them have around their text."""
    return (
        f"<!doctype html><html><head><title>Ships</title>{head}<style>p {{ margin: 0 }}</style></head><body>"
        "<nav><ul><li><a href='/'>Home</a></li><li><a href='/shop'>Shop</a></li></ul></nav>"
        f"<main><article><h1>The keeper</h1><p>{PROSE * 5}</p>{inside}<p>{PROSE * 5}</p></article></main>"
        "<footer>All rights reserved. <a href='/imprint'>Imprint</a></footer><script>track()</script></body></html>"
    )


@both
def test_the_text_is_kept_and_what_surrounds_it_is_not(extractor: Extractor) -> None:
    text = main_text(page("<p>It was late.</p>").encode(), extractor).text
    assert text.count(PROSE.strip()) == 10 and "It was late." in text
    for left_out in ("Home", "Shop", "rights", "Imprint", "margin", "track"):
        assert left_out not in text


@both
def test_tables_lists_and_code_keep_their_lines(extractor: Extractor) -> None:
    text = main_text(
        page(
            "<table><tr><th>Ship</th><th>Tons</th></tr><tr><td>Ann</td><td>12</td></tr></table>"
            "<pre><code>def f(x):\n    if x &lt; 2:\n        return x\n</code></pre>"
            "<ul><li>one <b>red</b> apple</li><li>two pears</li></ul>"
        ).encode(),
        extractor,
    ).text
    assert re.search(r"^\W*Ship\W+Tons\W*$", text, re.MULTILINE)
    assert re.search(r"^\W*Ann\W+12\W*$", text, re.MULTILINE)
    assert "def f(x):\n    if x < 2:\n        return x\n" in text
    assert re.search(r"^ *\S one red apple\n *\S two pears$", text, re.MULTILINE)


def test_a_list_of_text_near_the_top_is_no_menu() -> None:
    items = "".join(f"<li>Item {n}: {PROSE}</li>" for n in range(9))
    menu = "<ul><li><a href='/'>Home</a></li><li><a href='/shop'>Shop</a></li></ul>"
    text = main_text(f"<html><body>{menu}<h1>Nine</h1><ul>{items}</ul></body></html>".encode()).text
    assert all(f"Item {n}" in text for n in range(9)) and "Shop" not in text


def test_a_character_alone_in_its_element_is_kept() -> None:
    text = main_text(page("<p><span>船</span><span>长</span> of the <b>—</b> ship</p>").encode()).text
    assert "船长 of the — ship" in text


# Character sets


@pytest.mark.parametrize(
    ("prose", "encoding", "said", "server"),
    [
        ("Смотритель зажёг лампу, и корабли вернулись домой. ", "cp1251", "windows-1251", ""),
        ("Смотритель зажёг лампу, и корабли вернулись домой. ", "cp1251", "windows-1251", "iso-8859-1"),
        ("Смотритель зажёг лампу, и корабли вернулись домой. ", "cp1251", "utf-8", "utf-8"),
        ("Смотритель зажёг лампу, и корабли вернулись домой. ", "utf-8", "windows-1251", "windows-1251"),
        ("守塔人点亮了灯，船一艘接一艘地回家了。", "gb18030", "gb2312", "iso-8859-1"),
        ("守塔人点亮了灯，船一艘接一艘地回家了。", "gb18030", "", "utf-8"),
        ("灯台守がランプをともすと、船が帰ってきた。", "cp932", "", "shift_jis"),
        ("灯台守がランプをともすと、船が帰ってきた。", "utf-16", "utf-8", "iso-8859-1"),
        ("Wärter zündeten die Lampe für Schiffe aus Köln – „heim“. ", "cp1252", "", "us-ascii"),
        ("Wärter zündeten die Lampe für Schiffe aus Köln – „heim“. ", "utf-8", "", "no-such-charset"),
        ("Latarnik zapalił lampę, a łodzie wróciły do domu. ", "iso8859-2", "iso-8859-2", "iso-8859-1"),
    ],
)
def test_the_bytes_count_more_than_what_server_and_page_say(
    prose: str, encoding: str, said: str, server: str
) -> None:
    head = f'<meta http-equiv="Content-Type" content="text/html; charset={said}">' if said else ""
    text = main_text(page(f"<p>{prose * 9}</p>", head).encode(encoding), declared_charset=server).text
    assert prose.strip() in text


def test_stray_bytes_and_nuls_do_no_harm() -> None:
    found = main_text(page("<p>a \x00 and a </p>").encode())
    assert found.reason == "nul_bytes_removed" and "\x00" not in found.text
    found = main_text(page("<p>ä ö ü ß </p>").encode() + b"\xff")
    assert found.reason == "invalid_utf8_replaced"


# Pages that give nothing, little, or trouble


@both
@pytest.mark.parametrize(
    "html",
    [
        "",
        " \n",
        "<html><body></body></html>",
        "<script>x()</script>",
        "<p>…</p>",
    ],
)
def test_a_page_without_text_says_so(html: str, extractor: Extractor) -> None:
    with pytest.raises(NoMainText) as caught:
        main_text(html.encode(), extractor)
    assert caught.value.reason == "no_main_text"
    assert list(read_page(html.encode(), "7", ReadOptions(extractor=extractor))) == [
        ReadIssue("rejected", "no_main_text", "7")
    ]


def test_a_page_is_a_document_and_what_was_done_to_it_a_note() -> None:
    note, text = read_page(page("<p>Grüße</p>").encode("cp1252"), "", ReadOptions())
    assert isinstance(note, ReadIssue) and (note.outcome, note.reason) == ("changed", "decoded_as_cp1252")
    assert isinstance(text, ExtractedText) and "Grüße" in text.text


def test_where_resiliparse_finds_next_to_nothing_trafilatura_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    html = page(f"<p>{PROSE * 9}</p>").encode()
    plain = main_text(html)
    monkeypatch.setattr(extract, "_by_resiliparse", lambda tree: "The keeper")
    asked = main_text(html)
    assert asked.reason == "extracted_by_trafilatura" and PROSE.strip() in asked.text and not plain.reason


def test_nesting_without_end_is_refused_and_any_number_of_tags_takes_seconds() -> None:
    began = time.process_time()
    for extractor in BOTH:
        with pytest.raises(NoMainText) as caught:
            main_text(b"<div>" * 100_000 + PROSE.encode() * 9, extractor)
        assert (caught.value.reason, caught.value.threshold) == ("nested_too_deep", MOST_NESTED)
    many = page("<p>a <b>b</b> c</p>" * (MOST_TAGS // 4 + 1)).encode()
    assert main_text(many, "trafilatura").reason == "extracted_by_resiliparse"
    hostile = (
        b"<p>" * 200_000,
        b"<" * 300_000,
        b"<!--" * 99_999,
        b"<a href=" * 99_999,
        b"&" * 300_000,
        b"</b>" * 99_999,
    )
    for data in hostile:
        for extractor in BOTH:
            list(read_page(data, "", ReadOptions(extractor=extractor)))
    assert time.process_time() - began < 8


# Against the libraries


@pytest.mark.skipif(not PAGES.exists(), reason=f"no benchmark pages in {PAGES}")
def test_on_news_pages_ours_is_not_behind_the_library_itself() -> None:
    truth = json.loads((PAGES / "ground-truth.json").read_text(encoding="utf-8"))
    ours = theirs = 0.0
    chosen = sorted(truth)[::6]
    for name in chosen:
        data = gzip.decompress((PAGES / "html" / f"{name}.html.gz").read_bytes())
        ours += _f1(truth[name]["articleBody"], main_text(data).text)
        theirs += _f1(
            truth[name]["articleBody"], extract_plain_text(HTMLTree.parse(data.decode()), main_content=True)
        )
    assert ours / len(chosen) > max(0.9, theirs / len(chosen) - 0.02)


def _f1(truth: str, found: str) -> float:
    wanted, got = (Counter(re.findall(r"\w+", text)) for text in (truth, found))
    return 2 * (wanted & got).total() / (wanted.total() + got.total())
