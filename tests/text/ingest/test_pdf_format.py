"""PDF: what is in it comes out readable, and nothing hostile is fatal."""

import time

import pytest
import typst

from format_helpers import damaged, read_as, reasons, text_of
from groundup.text.ingest.formats import pdf
from groundup.text.ingest.types import ExtractedText, ReadIssue, ReadOptions

PROSE = "The keeper of the lighthouse unquestionably remembered every extraordinary ship that had come home safely. "


def typeset(body: str, page: str = "width: 12cm, height: 15cm") -> bytes:
    made: bytes = typst.compile(
        f'#set page({page})\n#set par(justify: true)\n#set text(lang: "en", hyphenate: true)\n{body}'.encode()
    )
    return made


def test_wrapped_lines_of_a_pdf_become_paragraphs_without_hyphens() -> None:
    text = text_of(pdf, typeset("= The light\n" + (PROSE * 3 + "\n\n") * 3))
    assert text.split("\n\n") == ["The light", *[(PROSE * 3).strip()] * 3]


def test_a_paragraph_goes_on_over_the_end_of_a_page_and_running_heads_are_left_out() -> None:
    head = "width: 9cm, height: 7cm, header: [The Handbook], footer: context [#counter(page).display()]"
    text = text_of(pdf, typeset(PROSE * 12, head))
    assert text == (PROSE * 12).strip()


def test_two_columns_are_read_one_after_the_other() -> None:
    first, second = ("Left side " + PROSE) * 4, ("Right side " + PROSE) * 4
    text = text_of(pdf, typeset(first + "\n#colbreak()\n" + second, "width: 16cm, height: 20cm, columns: 2"))
    assert text.split("\n\n") == [first.strip(), second.strip()]


def test_lists_and_code_in_a_pdf_keep_their_lines() -> None:
    code = "def light():\n    return 1\n\ndark = 2"
    text = text_of(pdf, typeset(f"{PROSE * 3}\n- alpha\n- beta\n- gamma\n\n```\n{code}\n```"))
    assert "• alpha\n• beta\n• gamma" in text
    assert "def light():\n    return 1\n\ndark = 2" in text


@pytest.mark.parametrize(
    ("before", "after", "whole"),
    [
        ("re-", "member it", "remember it"),
        ("state-of-the-", "art", "state-of-the-art"),
        ("pages 3-", "4", "pages 3- 4"),
    ],
)
def test_a_hyphen_at_the_end_of_a_line_is_mended_only_within_a_word(
    before: str, after: str, whole: str
) -> None:
    from groundup.text.ingest.formats._pdf_pages import join_hyphenated

    assert "".join(join_hyphenated(before, " ", after)) + after == whole


def test_a_pdf_without_letters_goes_aside() -> None:
    assert reasons(read_as(pdf, typeset("#rect(width: 3cm, height: 3cm)"))) == [
        ("", "rejected", "no_text_layer")
    ]


def test_damaged_encrypted_and_oversized_pdfs_go_aside_with_their_reason() -> None:
    whole = typeset(PROSE)
    assert reasons(read_as(pdf, b"%PDF-1.7 and then nothing")) == [("", "rejected", "damaged_pdf")]
    assert reasons(read_as(pdf, whole[: len(whole) // 3])) == [("", "rejected", "damaged_pdf")]
    locked = raw_pdf(
        [], encrypt=b"/Encrypt<</Filter/Standard/V 1/R 2/P -4/O<%b>/U<%b>>>" % (b"41" * 32, b"42" * 32)
    )
    assert reasons(read_as(pdf, locked)) == [("", "rejected", "encrypted")]
    assert reasons(read_as(pdf, whole, ReadOptions(max_file_bytes=100))) == [("", "rejected", "too_large")]


def test_a_damaged_pdf_is_not_reported_as_the_file_before_it() -> None:
    """PDFium keeps its last error where a file without a catalog sets none."""
    locked = raw_pdf(
        [], encrypt=b"/Encrypt<</Filter/Standard/V 1/R 2/P -4/O<%b>/U<%b>>>" % (b"41" * 32, b"42" * 32)
    )
    broken = raw_pdf([b""]).replace(b"<</Type/Catalog", b"<<\x88Type/Catalog")
    after_a_good_one = [read_as(pdf, raw_pdf([b""])), read_as(pdf, broken)][1]
    after_a_locked_one = [read_as(pdf, locked), read_as(pdf, broken)][1]
    assert reasons(after_a_locked_one) == [("", "rejected", "damaged_pdf")]
    assert after_a_locked_one == after_a_good_one


def raw_pdf(forms: list[bytes], width: int = 1, encrypt: bytes = b"") -> bytes:
    """Two pages: one with plain words, one that draws the first of the forms, each of which may draw the next."""

    def stream(about: bytes, body: bytes) -> bytes:
        return b"<<%b/Length %d>>stream\n%b\nendstream" % (about, len(body), body)

    font = b"/Font<</F 3 0 R>>"
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 300]/Contents %d 0 R/Resources<<%b>>>>"
    words = b"BT /F 12 Tf 20 200 Td (Ships come home.) Tj ET"
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[4 0 R 5 0 R 4 0 R]/Count 3>>",
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        page % (6, font),
        page % (7, font + b"/XObject<</X 8 0 R>>"),
        stream(b"", words),
        stream(b"", b"/X Do " * width),
    ]
    for number, body in enumerate(forms):
        inner = font if number == len(forms) - 1 else b"/XObject<</X %d 0 R>>" % (9 + number)
        objects.append(stream(b"/Type/XObject/Subtype/Form/BBox[0 0 300 300]/Resources<<%b>>" % inner, body))
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    trailer = b"trailer<</Size %d/Root 1 0 R/ID[<00><00>]%b>>" % (len(objects) + 1, encrypt)
    head = b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    return out + head + table + trailer + b"\nstartxref\n%d\n%%%%EOF" % len(out)


def test_a_page_that_draws_itself_a_billion_times_is_noted_and_the_others_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pdf, "PAGE_SECONDS", 1.0)
    bomb = raw_pdf([b"/X Do " * 10] * 8 + [b"BT /F 1 Tf (hello) Tj ET"], width=10)
    assert len(bomb) < 10_000
    start = time.monotonic()
    note, text = read_as(pdf, bomb)
    assert isinstance(note, ReadIssue) and (note.reason, note.position) == ("too_costly", "page2")
    assert isinstance(text, ExtractedText) and text.text == "Ships come home.\n\nShips come home."
    assert time.monotonic() - start < 30
    assert "Ships" in text_of(pdf, raw_pdf([b""]))  # a new process answers


def test_a_page_tree_that_loops_or_lies_about_its_size_is_read_as_far_as_it_goes() -> None:
    whole = raw_pdf([b""])
    kids = b"/Kids[4 0 R 5 0 R 4 0 R]/Count 3"
    for tree in (b"/Kids[2 0 R 4 0 R]/Count 99999999", b"/Kids[4 0 R]/Count 2000000000"):
        assert "Ships come home." in text_of(pdf, whole.replace(kids, tree))
    items = read_as(pdf, whole.replace(kids, b"/Kids[4 0 R]/Count 5000"))
    assert len(items) == pdf.MAX_ISSUES + 2
    assert reasons(items)[-1] == ("", "changed", "damaged_pages")


def test_pages_of_nothing_but_the_same_line_are_a_text() -> None:
    same = raw_pdf([b""]).replace(b"[4 0 R 5 0 R 4 0 R]/Count 3", b"[" + b"4 0 R " * 9 + b"]/Count 9")
    assert text_of(pdf, same).count("Ships come home.") == 9


def test_damage_of_any_kind_gives_notes_and_texts_and_nothing_else() -> None:
    for data in damaged(typeset(PROSE * 3)):
        for item in read_as(pdf, data):
            assert isinstance(item, ReadIssue) or item.text.encode().decode()
