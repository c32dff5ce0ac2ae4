"""Word documents: Markdown out of friendly ones, a reason for the others."""

import io
import time
from pathlib import Path
from typing import Any

import docx
from docx.oxml import parse_xml

from format_helpers import LAUGHS, damaged, read_as, reasons, rezipped, text_of, texts
from groundup.text.ingest.formats import docx as docx_format
from groundup.text.ingest.types import ExtractedText, ReadIssue, ReadOptions


def saved(document: Any) -> bytes:
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def test_a_word_document_becomes_markdown_in_the_order_of_its_text() -> None:
    document = docx.Document()
    document.add_heading("The light", 0)
    document.add_heading("Ships", 2)
    document.add_paragraph("Before the table.")
    table = document.add_table(2, 2)
    for cell, words in zip(
        [c for row in table.rows for c in row.cells], ("ship", "tons", "Ann|e", "a\nb"), strict=True
    ):
        cell.text = words
    document.add_paragraph("one", style="List Bullet")
    document.add_paragraph("two", style="List Bullet")
    document.add_paragraph("first", style="List Number")
    document.add_paragraph("second", style="List Number")
    document.add_paragraph("After\tall.")
    assert text_of(docx_format, saved(document)) == (
        "# The light\n\n## Ships\n\nBefore the table.\n\n| ship | tons |\n| --- | --- |\n| Ann\\|e | a b |\n\n"
        "- one\n- two\n1. first\n2. second\n\nAfter\tall."
    )


def test_inserted_text_and_content_controls_are_read_and_deleted_text_is_not() -> None:
    names = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    control = "<w:sdtContent><w:p><w:r><w:t>In a control.</w:t></w:r></w:p></w:sdtContent>"
    inserted, deleted = "<w:r><w:t>did</w:t></w:r>", "<w:r><w:delText>did not</w:delText></w:r>"
    document = docx.Document()
    document.element.body.insert(0, parse_xml(f"<w:sdt {names}>{control}</w:sdt>"))
    changed = f"<w:ins>{inserted}</w:ins><w:del>{deleted}</w:del>"
    words = f"<w:r><w:t>It </w:t></w:r>{changed}<w:r><w:t> work.</w:t></w:r>"
    document.element.body.insert(1, parse_xml(f"<w:p {names}>{words}</w:p>"))
    assert text_of(docx_format, saved(document)) == "In a control.\n\nIt did work."


def test_hostile_and_broken_word_documents_go_aside() -> None:
    document = docx.Document()
    document.add_paragraph("Words.")
    good = saved(document)
    assert reasons(read_as(docx_format, rezipped(good, {"word/media/x": b"\x00" * (20 << 20)}))) == [
        ("", "rejected", "expands_too_much")
    ]
    assert reasons(read_as(docx_format, good, ReadOptions(max_file_bytes=60_000))) == [
        ("", "rejected", "too_large")
    ]
    assert reasons(read_as(docx_format, rezipped(good, {"word/document.xml": LAUGHS}))) == [
        ("", "rejected", "damaged_docx")
    ]
    assert reasons(read_as(docx_format, good[:-500])) == [("", "rejected", "damaged_docx")]
    assert reasons(read_as(docx_format, saved(docx.Document()))) == [("", "rejected", "empty")]
    ole = (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600) + "EncryptedPackage".encode("utf-16-le") + bytes(600)
    )
    assert reasons(read_as(docx_format, ole)) == [("", "rejected", "encrypted")]


def test_a_word_document_of_too_many_tags_or_a_line_without_end_goes_aside() -> None:
    many = saved(docx.Document())
    names = "xmlns:w='http://schemas.openxmlformats.org/wordprocessingml/2006/main'"
    body = f"<w:document {names}><w:body>{'<w:p/>' * 1_000_000}</w:body></w:document>".encode()
    assert reasons(read_as(docx_format, rezipped(many, {"word/document.xml": body}))) == [
        ("", "rejected", "too_many_tags")
    ]
    document = docx.Document()
    document.add_paragraph("word " * 300_000)
    assert reasons(read_as(docx_format, saved(document))) == [("", "rejected", "line_too_long")]


def test_lists_without_end_take_no_time() -> None:
    document = docx.Document()
    document.add_paragraph("one", style="List Number")
    namespace = "xmlns:w='http://schemas.openxmlformats.org/wordprocessingml/2006/main'"
    level = '<w:lvl w:ilvl="0"><w:numFmt w:val="decimal"/></w:lvl>'
    lists = "".join(f'<w:abstractNum w:abstractNumId="{n}">{level}</w:abstractNum>' for n in range(20_000))
    uses = "".join(f'<w:num w:numId="{n}"><w:abstractNumId w:val="{n}"/></w:num>' for n in range(20_000))
    numbering = f"<w:numbering {namespace}>{lists}{uses}</w:numbering>".encode()
    started = time.process_time()
    (text,) = texts(read_as(docx_format, rezipped(saved(document), {"word/numbering.xml": numbering})))
    assert text.text == "1. one" and time.process_time() - started < 5


def test_a_word_document_reaches_no_file_outside_of_it() -> None:
    document = docx.Document()
    document.add_paragraph("Words.")
    good = saved(document)
    body = b'<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]><w:document xmlns:w="%b">'
    body += b"<w:body><w:p><w:r><w:t>a &x; b"
    body = body % b"http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    items = read_as(
        docx_format, rezipped(good, {"word/document.xml": body + b"</w:t></w:r></w:p></w:body></w:document>"})
    )
    assert all("root:" not in item.text for item in items if isinstance(item, ExtractedText))
    slipped = rezipped(good, {"../../../../tmp/slipped.txt": b"out", "/tmp/slipped.txt": b"out"})
    assert text_of(docx_format, slipped) == "Words."
    assert not Path("/tmp/slipped.txt").exists()


def test_a_directory_that_lies_about_sizes_unpacks_no_more_than_it_says() -> None:
    document = docx.Document()
    document.add_paragraph("Words.")
    bomb = rezipped(saved(document), {"word/document.xml": b"\x00" * (20 << 20)})
    size = (20 << 20).to_bytes(4, "little")
    assert bomb.count(size) == 2  # in the directory, and before the entry itself
    assert reasons(read_as(docx_format, bomb.replace(size, (999).to_bytes(4, "little")))) == [
        ("", "rejected", "damaged_docx")
    ]


def test_damage_of_any_kind_gives_notes_and_texts_and_nothing_else() -> None:
    document = docx.Document()
    document.add_heading("Light", 1)
    document.add_table(2, 2).rows[0].cells[0].text = "x"
    for data in damaged(saved(document)):
        for item in read_as(docx_format, data):
            assert isinstance(item, ReadIssue) or item.text.encode().decode()


def test_an_archive_whose_entries_lie_before_its_start_is_damaged(tmp_path: Path) -> None:
    data = bytearray(saved(docx.Document()))
    end = data.rfind(b"PK\x05\x06")
    data[end + 16 : end + 20] = (int.from_bytes(data[end + 16 : end + 20], "little") + 9999).to_bytes(
        4, "little"
    )
    (tmp_path / "a.docx").write_bytes(data)
    with (tmp_path / "a.docx").open("rb") as file:  # a file on disk refuses the position with an OSError
        assert reasons(list(docx_format.read("a.docx", file, ReadOptions()))) == [
            ("", "rejected", "damaged_docx")
        ]
