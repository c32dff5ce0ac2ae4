"""Mail: one document per message, whatever people's programs made of it."""

import mailbox
import time
from email.message import EmailMessage
from pathlib import Path

import pytest

from format_helpers import damaged, read_as, reasons, text_of, texts
from groundup.text.ingest.formats import mail
from groundup.text.ingest.types import ExtractedText, ReadIssue, ReadOptions


def letter(body: str = "Dear all,\n> quoted\nthe light is out.\n", **headers: str) -> EmailMessage:
    message = EmailMessage()
    for name, value in (
        {"From": "ann@example.org", "To": "bob@example.org", "Subject": "Größe & light"} | headers
    ).items():
        message[name] = value
    message.set_content(body)
    return message


def test_a_message_keeps_subject_date_and_quoted_lines_and_no_addresses() -> None:
    text = text_of(mail, letter(Date="Tue, 03 Mar 2020 10:00:00 +0000").as_bytes())
    assert text == (
        "Subject: Größe & light\nDate: Tue, 03 Mar 2020 10:00:00 +0000\n\nDear all,\n> quoted\nthe light is out."
    )


def test_plain_text_is_preferred_to_html_and_attachments_are_counted() -> None:
    message = letter("Plain – words.")
    message.add_alternative("<p>Rich words.</p>", subtype="html")
    message.add_attachment(b"\x00\x01", maintype="application", subtype="octet-stream", filename="x.bin")
    note, text = read_as(mail, message.as_bytes())
    assert isinstance(note, ReadIssue) and (note.outcome, note.reason, note.value) == (
        "changed",
        "attachments_left_out",
        1,
    )
    assert isinstance(text, ExtractedText) and text.text.endswith("\n\nPlain – words.")
    html = letter()
    html.set_content("<h1>Only</h1><p>rich <b>words</b>.</p>", subtype="html", cte="base64")
    assert text_of(mail, html.as_bytes()).endswith("\n\nOnly\n\nrich words.")


def test_a_forwarded_message_is_part_of_the_one_that_carries_it() -> None:
    message = letter("See below.")
    message.add_attachment(letter("The old news.", Subject="News"))
    text = text_of(mail, message.as_bytes())
    assert text.endswith("See below.\n\nSubject: News\n\nThe old news.") and "example.org" not in text


def test_charsets_that_lie_are_seen_through() -> None:
    for declared, body in (
        ("us-ascii", "Größe".encode()),
        ("utf-8", "Größe".encode("cp1252")),
        ("klingon", b"Hello"),
    ):
        data = b"Subject: x\nContent-Type: text/plain; charset=%b\n\n%b" % (declared.encode(), body)
        note, text = read_as(mail, data)
        assert isinstance(note, ReadIssue) and (note.reason, note.detail) == (
            "malformed_message",
            "wrong_charset",
        )
        assert isinstance(text, ExtractedText) and text.text in ("Subject: x\n\nGröße", "Subject: x\n\nHello")


@pytest.fixture
def box(tmp_path: Path) -> Path:
    path = tmp_path / "some.mbox"
    with_from = "From here the road goes on.\n\nFrom there, too.\n"
    box = mailbox.mbox(path)
    for n, body in enumerate(["first\n", with_from, "third\n"]):
        box.add(letter(body, Subject=f"number {n}"))
    box.close()
    return path


def test_an_mbox_gives_what_the_standard_library_finds_in_it(box: Path) -> None:
    found = read_as(mail, box.read_bytes())
    library = mailbox.mbox(box)
    reference = [f"Subject: {message['subject']}\n\n{message.get_payload().strip()}" for message in library]
    library.close()
    assert [item.position for item in found] == ["1", "2", "3"]
    assert [item.text for item in found if isinstance(item, ExtractedText)] == [
        t.replace(">From", "From") for t in reference
    ]


def test_reading_an_mbox_goes_on_behind_what_was_read_before(box: Path) -> None:
    assert read_as(mail, box.read_bytes(), skip=2) == read_as(mail, box.read_bytes())[2:]
    assert read_as(mail, box.read_bytes(), skip=3) == []


def test_a_message_that_is_too_large_goes_aside_and_the_others_are_kept(box: Path) -> None:
    data = box.read_bytes().replace(b"From here", b"x" * 500_000 + b"\nFrom here")
    found = read_as(mail, data, ReadOptions(max_file_bytes=100_000))
    assert [(type(i).__name__, i.position) for i in found] == [
        ("ExtractedText", "1"),
        ("ReadIssue", "2"),
        ("ExtractedText", "3"),
    ]


def test_malformed_messages_are_noted() -> None:
    for data in (b"\n \n", b"Subject: x\n\n", b"Content-Type: message/rfc822\n\n" * 500):
        (note,) = read_as(mail, data)
        assert isinstance(note, ReadIssue) and (note.outcome, note.reason) == ("rejected", "empty")


def test_a_date_without_meaning_costs_the_date_alone() -> None:
    for date in ("Thu, 1 Jan 99999999999 00:00:00 +0000", "Thu, 1 Jan 1970 00:00:00 +99999999999999999999"):
        message = f"Received: x\nSubject: Light\nDate: {date}\n\nShips came.\n".encode()
        assert texts(read_as(mail, message))[0].text.endswith("Ships came.")


def test_a_message_of_too_many_lines_and_a_line_without_end_go_aside() -> None:
    head = b"Received: x\nSubject: Light\n\n"
    assert reasons(read_as(mail, head + b"a\n" * 4_100_000)) == [("", "rejected", "too_costly")]
    assert reasons(read_as(mail, head + b"word " * 300_000)) == [("", "rejected", "line_too_long")]


def test_parts_in_parts_without_end_take_no_time() -> None:
    def nested(depth: int) -> bytes:
        start = b'Content-Type: multipart/mixed; boundary="%d"\n\n--%d\n'
        return b"".join(start % (n, n) for n in range(depth)) + b"Content-Type: text/plain\n\nAt last."

    assert text_of(mail, nested(20)) == "At last."
    (note,) = read_as(mail, nested(300))  # of which the innermost text isn't looked for
    assert isinstance(note, ReadIssue) and note.outcome == "rejected"
    begun = time.process_time()
    (note,) = read_as(mail, nested(5000))
    assert isinstance(note, ReadIssue) and note.reason == "too_costly"
    assert time.process_time() - begun < 5


def test_damage_of_any_kind_gives_notes_and_texts_and_nothing_else() -> None:
    made = letter()
    made.add_alternative("<p>x</p>", subtype="html")
    made.add_attachment(letter("inner"))
    for data in damaged(made.as_bytes()):
        for item in read_as(mail, data):
            assert isinstance(item, ReadIssue) or item.text.encode().decode()
