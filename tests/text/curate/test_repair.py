"""Repair of characters, against ftfy and unicodedata."""

import time
import unicodedata

import ftfy
import pyarrow as pa
import pytest

from groundup.core.records import Document
from groundup.text.batch import DocumentBatch
from groundup.text.curate.steps.repair import KINDS, Repair
from groundup.text.curate.types import FilterResult
from groundup.text.documents import DOCUMENT_SCHEMA

PROSE = "The keeper lit the lamp, and the ships came home. "
TONGUES = (
    "Größe, Höhe und Länge – “schön” für 5 €",
    "Où êtes-vous, chère Noëlle ?",
    "Шла Саша по шоссе и сосала сушку",
    "Zażółć gęślą jaźń",
    "東京都は日本の首都です。",
    "सत्यमेव जयते",
    "می‌خواهم",
    "ημέρα 5 µm × 3 °C ½ £20",
)


def batch(*texts: str, path: str = "a.txt") -> DocumentBatch:
    rows = [Document(str(n), text, "files", path) for n, text in enumerate(texts)]
    columns = {name: [getattr(row, name) for row in rows] for name in DOCUMENT_SCHEMA.names}
    return DocumentBatch(pa.table(columns, schema=DOCUMENT_SCHEMA))


def repair(text: str, path: str = "a.txt", **settings: object) -> tuple[str, str | None, FilterResult]:
    said = Repair(**settings).apply(batch(text, path=path))
    assert said.text
    return said.text[0] if said.text[0] is not None else text, said.reason[0], said


@pytest.mark.parametrize(
    "text", [PROSE, *TONGUES, "a\tb\n\n\nc\n", "👩‍🚀 and na\u0308".replace("a\u0308", "ä")]
)
def test_what_is_well_stays_as_it_is(text: str) -> None:
    assert repair(text)[1] is None


@pytest.mark.parametrize("charset", ["latin-1", "sloppy-windows-1252", "sloppy-windows-1251", "macroman"])
def test_mojibake_is_undone_where_ftfy_undoes_it(charset: str) -> None:
    spoiled = []
    for text in TONGUES:
        try:
            spoiled.append(text.encode().decode(charset))
        except UnicodeDecodeError:
            continue
    said = Repair(unicode="as_is").apply(batch(*[f"{PROSE}\n{text}\nend" for text in spoiled]))
    assert said.text
    mended = [fixed.split("\n")[1] if fixed else None for fixed in said.text]
    for text, found in zip(spoiled, mended, strict=True):
        expected = ftfy.fix_encoding(text)
        assert (found or text) == expected.replace("\x85", "\n").replace("\xad", ""), text
    assert sum(found in TONGUES for found in mended) >= len(TONGUES) // 2
    assert "mojibake_repaired" in said.reason and said.metrics["mojibake"].max() == 1


def test_a_spoiled_line_is_mended_among_lines_that_are_well() -> None:
    text = "\n".join([TONGUES[4], "GrÃ¶ÃŸe", TONGUES[2]])
    assert repair(text)[:2] == (text.replace("GrÃ¶ÃŸe", "Größe"), "mojibake_repaired")
    assert repair(text, mojibake=False)[1] is None


@pytest.mark.parametrize(
    ("text", "fixed", "reason"),
    [
        (
            "one\r\ntwo\rthree\u2028four\x0bfive\x0csix",
            "one\ntwo\nthree\nfour\nfive\nsix",
            "line_ends_unified",
        ),
        ("a\x00b\x07c\x1b[31mred\x1b[0m\x7f\ufffe", "abcred", "control_chars_dropped"),
        ("\ufeffun\u00adseen\u200b words\u2060", "unseen words", "zero_width_dropped"),
        ("cafe\u0301 \u212b", "café Å", "unicode_normalised"),
        ("one\n \n\t\n\n\n\ntwo", "one\n\n\ntwo", "blank_lines_capped"),
    ],
)
def test_each_kind_of_repair_has_its_reason(text: str, fixed: str, reason: str) -> None:
    found, why, said = repair(text)
    assert (found, why) == (fixed, reason)
    assert said.metrics[KINDS[reason]][0] == said.value[0] > 0
    assert found.isprintable() or "\n" in found


def test_several_kinds_in_one_text_are_all_named() -> None:
    found, reason, said = repair("\ufeffcafe\u0301\r\nGrÃ¶ÃŸe\x00")
    assert (found, reason) == ("café\nGröße", "mojibake_repaired")
    assert said.detail == [
        "mojibake_repaired 1, control_chars_dropped 1, zero_width_dropped 1, unicode_normalised 1, "
        "line_ends_unified 1"
    ]


def test_the_normal_form_is_chosen() -> None:
    odd = "ﬁne ２ cafe\u0301"
    assert repair(odd)[0] == unicodedata.normalize("NFC", odd)
    assert repair(odd, unicode="NFKC")[0] == "fine 2 café"
    assert repair(odd, unicode="as_is")[1] is None
    assert repair("a\n\n\nb", max_blank_lines=0)[0] == "a\nb"


def test_source_code_keeps_its_letters_and_loses_control_characters() -> None:
    code = 'assert fix("GrÃ¶ÃŸe") == "cafe\u0301"\n'
    assert repair(code, path="a.py")[1] is None
    assert repair(code + "\x0c\n", path="a.py")[0] == code + "\n\n"


def test_a_text_of_nothing_visible_is_dropped() -> None:
    said = Repair().apply(batch("\u200b\ufeff\x00 \n", PROSE))
    assert said.reason == ["nothing_left", None] and said.text == [None, None]
    assert Repair().apply(batch()).reason == []


def test_repair_is_done_once() -> None:
    spoiled = "\ufeffcafe\u0301\r\nGrÃ¶ÃŸe\x00\n\n\n\n\x0c\n\n"
    once = repair(spoiled)[0]
    assert repair(once)[1] is None


def test_clean_text_costs_next_to_nothing() -> None:
    clean = batch(*[PROSE * 2000] * 50)  # 5 MB
    Repair().apply(clean)
    start = time.process_time()
    Repair().apply(clean)
    assert time.process_time() - start < 0.5
