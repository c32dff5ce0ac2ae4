"""EPUB: a book in its reading order, or the reason why not."""

from format_helpers import EMPTY_ZIP, LAUGHS, damaged, read_as, reasons, rezipped, text_of
from groundup.text.ingest.formats import epub as epub_format
from groundup.text.ingest.types import ExtractedText, ReadIssue

PACKAGE = """<package xmlns="http://www.idpf.org/2007/opf"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">
<dc:title>The Light</dc:title><dc:language>en-GB</dc:language></metadata><manifest>
<item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>
<item id="b" href="text/b%20two.xhtml" media-type="application/xhtml+xml"/>
<item id="a" href="text/a.xhtml" media-type="application/xhtml+xml"/>
<item id="c" href="gone.xhtml" media-type="application/xhtml+xml"/></manifest>
<spine><itemref idref="nav"/><itemref idref="b"/><itemref idref="c"/><itemref idref="a"/></spine></package>"""
CONTAINER = """<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>
<rootfile full-path="OEBPS/book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>"""
FONT = '<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><CipherReference URI="{}"/></encryption>'


def book(**more: bytes) -> bytes:
    page = '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title/></head><body>{}</body></html>'
    parts = {
        "META-INF/container.xml": CONTAINER.encode(),
        "OEBPS/book.opf": PACKAGE.encode(),
        "OEBPS/nav.xhtml": page.format("<nav>Contents</nav>").encode(),
        "OEBPS/text/b two.xhtml": page.format(
            "<h1>One</h1><p>Ships <a id='x'/>came.</p><p>Home.</p>"
        ).encode(),
        "OEBPS/text/a.xhtml": page.replace("?>", " encoding='windows-1251'?>", 1)
        .format("<p>Свет и море.</p>")
        .encode("cp1251"),
    }
    return rezipped(EMPTY_ZIP, parts | {name.replace("__", "/"): data for name, data in more.items()})


def test_a_book_is_read_in_the_order_of_its_spine_and_a_lost_chapter_is_noted() -> None:
    note, text = read_as(epub_format, book())
    assert isinstance(note, ReadIssue) and (note.reason, note.position) == (
        "damaged_chapter",
        "OEBPS/gone.xhtml",
    )
    assert isinstance(text, ExtractedText) and text.language == "en"
    assert text.text == "# The Light\n\nOne\n\nShips came.\n\nHome.\n\nСвет и море."


def test_a_locked_book_goes_aside_and_one_with_locked_fonts_is_read() -> None:
    encryption = "META-INF/encryption.xml"
    locked = book(**{encryption: FONT.format("OEBPS/text/a.xhtml").encode()})
    assert reasons(read_as(epub_format, locked)) == [("", "rejected", "encrypted")]
    fonts = book(**{encryption: FONT.format("OEBPS/font.otf").encode()})
    assert "Ships came." in text_of(epub_format, fonts)


def test_broken_books_go_aside() -> None:
    assert reasons(read_as(epub_format, EMPTY_ZIP)) == [("", "rejected", "damaged_epub")]
    assert reasons(read_as(epub_format, book(**{"OEBPS__book.opf": LAUGHS}))) == [
        ("", "rejected", "damaged_epub")
    ]
    assert reasons(read_as(epub_format, book(big=b"\x00" * (20 << 20)))) == [
        ("", "rejected", "expands_too_much")
    ]


def test_a_book_reaches_no_file_outside_of_it() -> None:
    package = PACKAGE.replace("gone.xhtml", "../../../../../../etc/passwd").replace(
        "text/a.xhtml", "/etc/passwd"
    )
    items = read_as(epub_format, book(**{"OEBPS__book.opf": package.encode()}))
    assert [reason for _, _, reason in reasons(items)] == ["damaged_chapter", "damaged_chapter"]
    assert all("root:" not in item.text for item in items if isinstance(item, ExtractedText))


def test_damage_of_any_kind_gives_notes_and_texts_and_nothing_else() -> None:
    for data in damaged(book()):
        for item in read_as(epub_format, data):
            assert isinstance(item, ReadIssue) or item.text.encode().decode()
