"""Bytes to text."""

import pytest

from groundup.text.ingest.decode import Undecodable, decode, without_surrogates


@pytest.mark.parametrize(
    ("data", "text", "reason"),
    [
        (b"plain", "plain", ""),
        ("Grüße €".encode(), "Grüße €", ""),
        ("Grüße".encode("utf-8-sig"), "Grüße", ""),
        ("Grüße".encode("utf-16"), "Grüße", "decoded_as_utf_16"),
        ("Grüße".encode("utf-16-be"), None, "binary"),
        (b"\xfe\xff" + "Grüße".encode("utf-16-be"), "Grüße", "decoded_as_utf_16"),
        ("Grüße".encode("utf-32"), "Grüße", "decoded_as_utf_32"),
        (
            "so – “schön” für 5 € in Köln".encode("cp1252"),
            "so – “schön” für 5 € in Köln",
            "decoded_as_cp1252",
        ),
        (b"a caf\xe9 and a caf\xe9", "a café and a café", "decoded_as_iso8859_2"),
        ("Привет, мир".encode("cp1251"), "Привет, мир", "decoded_as_cp1251"),
        ("日本語のテキスト".encode("shift-jis"), "日本語のテキスト", "decoded_as_cp932"),
        ("Zażółć gęślą jaźń".encode("cp1250"), "Zażółć gęślą jaźń", "decoded_as_cp1250"),
        (bytes(range(128, 256)) * 3, None, "unknown_encoding"),
        (b"MZ\x00\x01", None, "binary"),
        (b"ring \x07 the bell", "ring \x07 the bell", ""),
        (b"a\x01", "a\x01", ""),
        (b"a few \x02\x03 of them in a line of text", "a few \x02\x03 of them in a line of text", ""),
        (b"many \x02\x03\x02\x03\x02\x03", None, "binary"),
        (b"\x01" * 20 + b"." * 1900, None, "binary"),
        (bytes(range(256)) * 9, None, "binary"),
        (b"one \x00 in a text" + b"." * 99, "one  in a text" + "." * 99, "nul_bytes_removed"),
        (b"one\r\ntwo\rthree\n", "one\ntwo\nthree\n", ""),
    ],
)
def test_bytes_become_text_or_a_reason(data: bytes, text: str | None, reason: str) -> None:
    if text is None:
        with pytest.raises(Undecodable) as caught:
            decode(data)
        assert caught.value.reason == reason
    else:
        decoded = decode(data)
        assert (decoded.text, decoded.reason) == (text, reason)


def test_stray_bytes_in_utf8_are_replaced_and_counted() -> None:
    decoded = decode("äöü ß � ".encode() + b"\xff and \xfe")
    assert (decoded.text, decoded.reason, decoded.value) == ("äöü ß � � and �", "invalid_utf8_replaced", 2)


def test_lone_surrogates_are_replaced() -> None:
    assert without_surrogates("a\ud800b\udfff") == ("a�b�", 2)
