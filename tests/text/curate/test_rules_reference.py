"""Every rule's measures and verdict, document by document, against the papers' words put plainly into Python."""

import gzip
import json
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from groundup.text.batch import DocumentBatch
from groundup.text.curate.steps.c4 import C4
from groundup.text.curate.steps.code import Code
from groundup.text.curate.steps.fineweb import FineWeb
from groundup.text.curate.steps.gopher_quality import GopherQuality
from groundup.text.curate.steps.gopher_repetition import GopherRepetition
from groundup.text.documents import DOCUMENT_SCHEMA

DATA = Path(__file__).parents[4] / "shared" / "data"
NAN, INF = float("nan"), float("inf")
Measures = dict[str, float]
Bounds = list[tuple[str, str, float, float]]

UNSEEN = "\0\u200b\ufeff"
LETTERS_PER_WORD = {
    4: ("THAI ", "LAO ", "MYANMAR ", "KHMER "),
    2: ("CJK UNIFIED", "CJK COMPATIBILITY IDEOGRAPH", "HIRAGANA ", "KATAKANA", "HALFWIDTH KATAKANA"),
}
SENTENCE_ENDS = ".!?。।؟"


# Words and lines, one character at a time.


def letters(char: str) -> int:
    name = unicodedata.name(char, "")
    found = (letters for letters, scripts in LETTERS_PER_WORD.items() if name.startswith(scripts))
    return next(found, 0) if unicodedata.category(char)[0] in "LN" else 0


def joins(char: str) -> bool:
    return unicodedata.category(char)[0] in "MPS" or unicodedata.category(char) == "Cf"


def spaced(text: str) -> str:
    return "".join(" " if char in UNSEEN else char for char in text)


def words_of(text: str) -> list[str]:
    found = []
    for chunk in spaced(text).split():
        word = ""
        for char in chunk:
            by_itself = len(word) == 1 and letters(word) and not joins(char)
            if word and (letters(char) or by_itself):
                found.append(word)
                word = ""
            word += char
        found.append(word)
    return found


def lines_of(text: str) -> list[str]:
    return [line.strip() for line in spaced(text).split("\n") if line.strip()]


def paragraphs_of(text: str) -> list[str]:
    return [part.strip() for part in re.split(r"\n\s*\n", spaced(text)) if part.strip()]


def said_before(pieces: list[str]) -> list[str]:
    """Those whose words are the words of an earlier one."""
    found, seen = [], set()
    for piece in pieces:
        words = tuple(words_of(piece))
        if words in seen:
            found.append(piece)
        seen.add(words)
    return found


def letters_per_word(words: list[str]) -> int:
    unspaced = [letters(word[0]) for word in words]
    mostly = sum(map(bool, unspaced)) > len(words) / 2
    return round(float(np.mean([max(number, 1) for number in unspaced]))) if mostly else 1


def is_thai(word: str) -> bool:
    return "\u0e00" <= word[0] <= "\u0eff"


# Gopher, table A1 and appendix A1.1.

QUALITY: Bounds = [
    ("too_few_words", "words", 50, INF),
    ("too_many_words", "words", 0, 100_000),
    ("words_too_short", "word_length", 3, INF),
    ("words_too_long", "word_length", 0, 10),
    ("too_many_hashes", "hashes", 0, 0.1),
    ("too_many_ellipses", "ellipses", 0, 0.1),
    ("too_many_bullet_lines", "bullet_lines", 0, 0.9),
    ("too_many_ellipsis_lines", "ellipsis_lines", 0, 0.3),
    ("too_few_alphabetic_words", "alphabetic", 0.8, INF),
    ("too_few_stop_words", "stop_words", 2, INF),
]


def quality(text: str) -> Measures:
    words, lines = words_of(text), lines_of(text)
    per_word, number = letters_per_word(words), max(len(words), 1)
    said = [word for word in words if any(unicodedata.category(char)[0] in "LMN" for char in word)]
    alphabetic = [word for word in words if any(unicodedata.category(char)[0] in "LM" for char in word)]
    stop_words = {"the", "be", "to", "of", "and", "that", "have", "with"}
    bullets = [line for line in lines if line.startswith(("-", "•"))]
    ellipses = [line for line in lines if line.endswith(("...", "…"))]
    return {
        "words": len(said) / per_word,
        "word_length": NAN if per_word > 1 else sum(map(len, said)) / max(len(said), 1),
        "hashes": text.count("#") / number * per_word,
        "ellipses": (text.count("...") + text.count("…")) / number * per_word,
        "bullet_lines": len(bullets) / max(len(lines), 1),
        "ellipsis_lines": len(ellipses) / max(len(lines), 1),
        "alphabetic": len(alphabetic) / number,
        "stop_words": NAN if per_word > 1 else len(stop_words & set(words)),
    }


REPETITION: Bounds = [
    ("repeated_lines", "repeated_lines", 0, 0.30),
    ("repeated_line_chars", "repeated_line_chars", 0, 0.20),
    ("repeated_paragraphs", "repeated_paragraphs", 0, 0.30),
    ("repeated_paragraph_chars", "repeated_paragraph_chars", 0, 0.20),
]
REPETITION += [(f"frequent_{n}gram",) * 2 + (0, most) for n, most in ((2, 0.20), (3, 0.18), (4, 0.16))]
REPETITION += [(f"repeated_{n}gram",) * 2 + (0, (20 - n) / 100) for n in range(5, 11)]


def repetition(text: str) -> Measures:
    words, chars = words_of(text), max(len(text), 1)
    per_word = letters_per_word(words)
    names = [metric for _, metric, _, _ in REPETITION]
    if len(words) / per_word < 50:
        return dict.fromkeys(names, NAN)
    found: Measures = {}
    for name, pieces in (("line", lines_of(text)), ("paragraph", paragraphs_of(text))):
        again = said_before(pieces)
        found[f"repeated_{name}s"] = len(again) / max(len(pieces), 1)
        found[f"repeated_{name}_chars"] = sum(map(len, again)) / chars
    for n in range(2, 5):
        found[f"frequent_{n}gram"] = most_frequent(words, n * per_word) / chars
    for n in range(5, 11):
        found[f"repeated_{n}gram"] = covered(words, n * per_word) / chars
    return found


def most_frequent(words: list[str], n: int) -> int:
    """Characters in the n-gram said most often (at least twice); the longest of those."""
    counts = Counter(tuple(words[at : at + n]) for at in range(len(words) - n + 1))
    most = max(counts.values(), default=0)
    if most < 2:
        return 0
    joint = "" if letters_per_word(words) > 1 else " "
    return most * max(len(joint.join(gram)) for gram, count in counts.items() if count == most)


def covered(words: list[str], n: int) -> int:
    """Characters of the words that stand in an n-gram said before; each word counts once."""
    seen, inside = set(), set()
    for at in range(len(words) - n + 1):
        gram = tuple(words[at : at + n])
        if gram in seen:
            inside.update(range(at, at + n))
        seen.add(gram)
    return sum(len(words[at]) for at in inside)


# FineWeb, section 3.6.

FINEWEB: Bounds = [
    ("too_few_end_marks", "end_marks", 0.12, INF),
    ("too_many_short_lines", "short_lines", 0, 0.67),
    ("repeated_line_chars", "repeated_line_chars", 0, 0.1),
    ("too_many_line_ends", "line_ends", 0, 0.3),
]


def fineweb(text: str) -> Measures:
    words, lines = words_of(text), lines_of(text)
    number, thai = max(len(lines), 1), sum(map(is_thai, words)) > len(words) / 2
    again = said_before(lines)
    return {
        "end_marks": NAN if thai else sum(line.endswith(tuple(SENTENCE_ENDS)) for line in lines) / number,
        "short_lines": sum(len(line) <= 30 for line in lines) / number,
        "repeated_line_chars": sum(map(len, again)) / max(len(text.replace("\n", "")), 1),
        "line_ends": text.count("\n") / len(words) * letters_per_word(words) if words else 0,
    }


# C4, section 2.2, and the code that made it (tensorflow_datasets, c4_utils.py).

C4_BOUNDS: Bounds = [
    ("lorem_ipsum", "lorem_ipsum", 0, 0),
    ("curly_bracket", "curly_brackets", 0, 0),
    ("too_few_sentences", "sentences", 5, INF),
]
POLICY = "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies"


def c4(text: str) -> tuple[Measures, list[str]]:
    """The measures, and the lines that stay."""
    lines = lines_of(re.sub(r"\[\d*\]|\[edit\]|\[citation needed\]", "", text))
    found, kept = Counter[str](), []
    for line in lines:
        if not stays_in_c4(line):
            continue
        if "lorem ipsum" in line.lower():
            found["lorem_ipsum"] += 1
        if "javascript" in line.lower():
            continue
        found["curly_brackets"] += "{" in line
        if not any(phrase in line.lower() for phrase in POLICY):
            kept.append(line)
            found["sentences"] += sentences(line)
    removed = 1 - len(kept) / len(lines) if lines else 0.0
    return {"lines_removed": removed} | {name: found[name] for _, name, _, _ in C4_BOUNDS}, kept


def stays_in_c4(line: str) -> bool:
    words = words_of(line)
    marked = line.endswith((".", "?", "!", '"', "'")) and not line.endswith("...")
    foreign = ends_sentence(line) and line.rstrip("\"')]”’」）")[-1:] > "\x7f"
    return len(words) >= 3 and max(map(len, words)) <= 1000 and (marked or foreign or is_thai(words[-1]))


def ends_sentence(word: str) -> bool:
    return word.endswith(tuple(SENTENCE_ENDS)) or (
        word.endswith(tuple("\"')]”’」）")) and word[:-1].endswith(tuple(SENTENCE_ENDS))
    )


def sentences(line: str) -> int:
    """Words that end one (no small letter follows), Thai words before a space, and the last word."""
    words = [word for chunk in spaced(line).split() for word in [*words_of(chunk), " "]][:-1]
    number = 1
    for at, word in enumerate(words[:-1]):
        before_space = words[at + 1] == " "
        following = words[at + 2] if before_space else words[at + 1]
        ends = ends_sentence(word) and not "a" <= following[0] <= "z"
        number += word != " " and (ends or (before_space and is_thai(word)))
    return number


# Source code.

CODE: Bounds = [
    ("generated", "generated", 0, 0),
    ("lines_too_long", "longest_line", 0, 1000),
    ("mean_line_too_long", "mean_line", 0, 100),
    ("too_few_alphanumerics", "alphanumeric", 0.25, INF),
    ("too_much_data", "data_chars", 0, 5000),
    ("encoded_data", "encoded", 0, 0.5),
    ("long_encoded_data", "encoded_run", 0, 1024),
    ("repeated_line_chars", "repeated_line_chars", 0, 0.5),
]


def code(text: str, path: str) -> Measures:
    lines, chars = text.split("\n"), max(len(text), 1)
    if not lines[-1]:
        lines.pop()
    head = "\n".join(text.split("\n")[:5]).lower()
    marks = "auto-generated", "autogenerated", "automatically generated", "code generated by", "@generated"
    encoded = [len(run) for run in re.findall(r"[a-zA-Z0-9+/\n=]{64,}", text)]
    again = said_before(lines_of(text))
    return {
        "generated": int(any(mark in head for mark in (*marks, "do not edit"))),
        "longest_line": max(map(len, lines), default=0),
        "mean_line": sum(map(len, lines)) / max(len(lines), 1),
        "alphanumeric": sum(unicodedata.category(char)[0] in "LMN" for char in text) / chars,
        "data_chars": len(text) if path.endswith((".json", ".yaml", ".yml", ".xml")) else 0,
        "encoded": sum(encoded) / chars,
        "encoded_run": max(encoded, default=0),
        "repeated_line_chars": sum(map(len, again)) / chars,
    }


# What is compared, and on what.


def verdict(metrics: Measures, bounds: Bounds) -> str | None:
    broken = (reason for reason, name, low, high in bounds if metrics[name] < low or metrics[name] > high)
    return next(broken, None)


def batch(texts: list[str], path: str = "a.txt") -> DocumentBatch:
    blank = dict.fromkeys(DOCUMENT_SCHEMA.names, "")
    return DocumentBatch(
        pa.Table.from_pylist([blank | {"text": text, "path": path} for text in texts], DOCUMENT_SCHEMA)
    )


def read(name: str) -> Iterator[str]:
    path = DATA / name
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        for line in file:
            yield json.loads(line)["text"]


def web() -> list[str]:
    """Pages and paragraphs in twelve languages, as they are."""
    if not DATA.exists():
        pytest.skip("needs the web pages in shared/data")
    pages = [text for text in read("pretrain/c4_demo.jsonl") if len(text) < 8000][:60]
    raw = [text for text in read("web/quality/dclm_majority_data.jsonl.gz") if len(text) < 6000][:40]
    return pages + raw + list(read("pretrain/multilang/xquad_paragraphs.jsonl.gz"))[::16]


def noise() -> list[str]:
    """Texts that are made of what the rules look at, repeated."""
    draw = random.Random(0)
    bits = [
        "the", "cat", "and", "have", "be.", 'said."', "end of", "- ", "•", "...", "…", "#", "{", "[3]", "[edit]",
        "lorem ipsum", "JavaScript", "use cookies", "\n", "\n\n", "\n \n", " ", " \t ", "1 2 3", "--- ---", "“So?”",
        "我们在海边", "灯塔。", "「好。」", "กำลังกิน ข้าว", "สวัสดี\n", "नमस्ते।", "été", "e\u0301te\u0301", "\u200b", "🙂",
        "Python文件", "x" * 40, "word " * 12, "中文" * 30, "الكتاب؟", "コーヒーを飲む", "\x0b", "\r\n", "y" * 1001,
    ]  # fmt: skip
    texts = ["", " ", "\n\n\n", "a", "…", "#" * 99]
    for _ in range(110):
        some = draw.sample(bits, draw.randint(2, 12))
        texts.append("".join(draw.choice(some) + draw.choice(("", " ")) for _ in range(draw.randint(1, 160))))
    return texts


@pytest.fixture(scope="module", params=[web, noise])
def texts(request: pytest.FixtureRequest) -> list[str]:
    found: list[str] = request.param()
    return found


def agree(fates: Any, expected: list[Measures], bounds: Bounds, texts: list[str]) -> None:
    for row, metrics in enumerate(expected):
        measured = {name: float(values[row]) for name, values in fates.metrics.items()}
        assert measured == pytest.approx(metrics, nan_ok=True), texts[row][:300]
        changed = fates.text is not None and fates.text[row] is not None
        assert (None if changed else fates.reason[row]) == verdict(metrics, bounds), texts[row][:300]


@pytest.mark.parametrize(
    ("step", "reference", "bounds"),
    [
        (GopherQuality(), quality, QUALITY),
        (GopherRepetition(), repetition, REPETITION),
        (FineWeb(), fineweb, FINEWEB),
    ],
    ids=["gopher_quality", "gopher_repetition", "fineweb"],
)
def test_bounds_on_prose_are_those_of_the_papers(
    step: Any, reference: Callable[[str], Measures], bounds: Bounds, texts: list[str]
) -> None:
    fates = step.apply(batch(texts))
    agree(fates, [reference(text) for text in texts], bounds, texts)
    assert None in fates.reason and any(fates.reason)


def test_c4_leaves_the_lines_that_the_paper_leaves(texts: list[str]) -> None:
    fates = C4().apply(batch(texts))
    expected = [c4(text) for text in texts]
    agree(fates, [metrics for metrics, _ in expected], C4_BOUNDS, texts)
    assert fates.text is not None
    for text, new, reason, (_, kept) in zip(texts, fates.text, fates.reason, expected, strict=True):
        if new is not None:
            assert lines_of(new) == kept
        elif reason is None:
            assert lines_of(text) == kept


def test_rules_for_code_are_those_of_the_papers(texts: list[str]) -> None:
    for path in ("a.py", "b.json"):
        agree(Code().apply(batch(texts, path)), [code(text, path) for text in texts], CODE, texts)


def test_real_code_is_measured_like_the_reference() -> None:
    if not DATA.exists():
        pytest.skip("needs the source code in shared/data")
    files = [text for text in read("pretrain/code_slice.jsonl.gz") if len(text) < 10_000][:60]
    agree(Code().apply(batch(files, "a.py")), [code(text, "a.py") for text in files], CODE, files)
