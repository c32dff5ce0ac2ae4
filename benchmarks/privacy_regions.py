"""Recall of the privacy step by region, on numbers and logins from templates of their own. Prints Markdown.

in:  nothing: the templates below follow national numbering plans and the way people write, not the detector
out: a table: kind, region, form, recall of 200 in sentences

    python benchmarks/privacy_regions.py
"""

import random
import string

import pyarrow as pa

from groundup.text.batch import DocumentBatch
from groundup.text.curate.steps.privacy import Privacy
from groundup.text.documents import DOCUMENT_SCHEMA

COUNT = 200
SENTENCES = (
    "Please write to {} today.",
    "{}",
    "(siehe {})",
    "请看{}谢谢",
    "Mario: {}, grazie",
    "- {}\n- milk",
)
# "#" is any digit, N is 2 to 9, H is hexadecimal, W is a word; other characters stand for themselves.
TEMPLATES = (
    ("phone", "BR", "mobile", ("(11) 9N###-####", "(21) 9N###-####", "+55 11 9N###-####", "11 9N###-####")),
    ("phone", "BR", "fixed", ("(11) 3###-####", "(21) 2###-####", "11 3###-####")),
    ("phone", "AU", "mobile", ("0412 ### ###", "0423### ###", "+61 412 ### ###", "0412-###-###")),
    ("phone", "AU", "fixed", ("(02) 9### ####", "03 9### ####")),
    ("phone", "IT", "mobile", ("347 ### ####", "347 #######", "+39 347 ### ####")),
    ("phone", "IT", "fixed", ("06 6### ####", "02 6#######", "011 5#####", "06/6#######")),
    ("phone", "DE", "mobile", ("0171 N######", "0151 N#######", "+49 171 N######")),
    ("phone", "DE", "fixed", ("030 N#######", "089/N######", "(040) N#####")),
    ("phone", "FR", "all", ("06 12 ## ## ##", "01.42.##.##.##", "+33 6 12 ## ## ##")),
    ("phone", "GB", "all", ("07700 9#####", "020 7946 0###", "(0161) 496 0###", "+44 7700 9#####")),
    ("phone", "ES", "all", ("612 ### ###", "91 N## ## ##", "+34 612 ### ###")),
    ("phone", "US", "all", ("(212) N1#-####", "212-N1#-####", "212.N1#.####", "+1 212 N1# ####")),
    ("phone", "IN", "mobile", ("98### #####", "+91 98### #####", "98########")),
    ("phone", "JP", "all", ("090-1###-####", "03-3###-####", "+81 90 1### ####")),
    ("phone", "CN", "mobile", ("138########", "138 #### ####", "+86 138 #### ####")),
    ("email", "", "plain", ("W.W@W.de", "W@W.co.uk", "W_W@W-W.com")),
    (
        "email",
        "",
        "obfuscated",
        ("W [at] W [punkt] de", "W(at)W.com", "W at W dot com", "W@W [punkt] de", "W at web.de"),
    ),
    ("api_key", "", "logins", ("curl -u W:W#### https://W.com", "machine W.com login W password W####")),
    ("api_key", "", "auth header", ("Authorization: Bearer HHHHHHHH-HHHH-4HHH-8HHH-HHHHHHHHHHHH",)),
    ("ip", "", "IPv4", ("9N.1##.N1.1##", "192.168.1.1##")),
    ("ip", "", "MAC", ("0H:1H:2H:3H:4H:aH", "0H-1H-2H-3H-4H-aH")),
)
_CHOICES = {"#": "0123456789", "N": "23456789", "H": "0123456789abcdef"}


def main() -> None:
    draw = random.Random(29)
    print("| kind | region | form | recall |\n|---|---|---|---|")
    for kind, region, form, templates in TEMPLATES:
        texts = [filled(draw, templates) for _ in range(COUNT)]
        print(f"| {kind} | {region} | {form} | {recall(kind, texts):.2f} |")


def filled(draw: random.Random, templates: tuple[str, ...]) -> str:
    """A sentence with a number or login of one of the templates."""
    value = "".join(_character(draw, char) for char in draw.choice(templates))
    return draw.choice(SENTENCES).format(value)


def _character(draw: random.Random, char: str) -> str:
    if char == "W":
        return "".join(draw.choices(string.ascii_lowercase, k=7))
    return draw.choice(_CHOICES[char]) if char in _CHOICES else char


def recall(kind: str, texts: list[str]) -> float:
    """The share of texts in which something of this kind is found."""
    blank = dict.fromkeys(DOCUMENT_SCHEMA.names, "")
    batch = DocumentBatch(pa.Table.from_pylist([blank | {"text": text} for text in texts], DOCUMENT_SCHEMA))
    found = Privacy().find(batch)
    return sum(any(name == kind for _, _, name in found.get(row, [])) for row in range(len(texts))) / len(
        texts
    )


if __name__ == "__main__":
    main()
