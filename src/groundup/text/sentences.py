"""Sentences and word counts of text in any script.

in:  text without line breaks
out: its sentences, and a count of words that means about the same in every language

Implements the rules of Unicode's UAX #29 that need no dictionary: a full stop ends a sentence before a letter not in
lower case; the full stops of Chinese, Japanese, Hindi, Arabic and Urdu end one anywhere. Thai, Lao, Khmer and Burmese
mark no sentence ends: a space separates their clauses and sentences, so it is taken for the end.
"""

import re

_CLOSERS = "\"'”’)\\]»」』）"
_OPENERS = "\"'“‘(\\[«「『（"
_SPACED_END = re.compile(rf"(?<=[.!?…;\u037e])[{_CLOSERS}]*\s+(?=[{_OPENERS}]?([^\W_]))")
_ANYWHERE_END = re.compile(rf"(?<=[。！？｡।॥؟۔։።])[{_CLOSERS}]*\s*(?=\S)")
_NO_SENTENCE_MARKS = re.compile(r"[\u0e00-\u0eff\u1780-\u17ff\u1000-\u109f]")
"""Letters of Thai, Lao, Khmer and Burmese."""
UNSPACED_LETTER = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"
)
"""Letters of scripts that write no space between words."""
LETTERS_PER_WORD = 3
"""Letters that stand for one word in these scripts: 1.5 (Chinese) to 5 (Thai)."""
END_MARKS = ".!?。！？｡।॥؟۔։።…\"”’')»」』）"


def split_sentences(text: str) -> list[str]:
    """The sentences in order, with closing quotes after an inner sentence's end left out."""
    greek = _is_greek(text)
    borders = []
    for match in _SPACED_END.finditer(text):
        mark = text[match.start() - 1]
        if not match[1].islower() and (mark not in ";\u037e" or greek):
            borders.append(match.span())
    borders += [match.span() for match in _ANYWHERE_END.finditer(text)]
    if not borders and len(_NO_SENTENCE_MARKS.findall(text)) > len(text) / 2:
        borders = [match.span() for match in re.finditer(r"\s+", text)]
    starts = [0, *(end for _, end in sorted(borders))]
    ends = [*(start for start, _ in sorted(borders)), len(text)]
    return [text[start:end] for start, end in zip(starts, ends, strict=True) if end > start]


def join_sentences(first: str, second: str) -> str:
    """Two sentences in one text: with a space between, but in scripts that write none."""
    space = "" if first[-1:] in "。！？｡" else " "
    return f"{first}{space}{second}".strip()


def count_words(text: str) -> int:
    """Words between spaces, or where a script writes no spaces, a third of its letters."""
    unspaced = _unspaced_letters(text)
    return unspaced // LETTERS_PER_WORD if unspaced else len(text.split())


def _unspaced_letters(text: str) -> int:
    """Letters of scripts without spaces between words; 0 where they are at most half of the text."""
    letters = len(UNSPACED_LETTER.findall(text))
    return letters if letters > len(text) / 2 else 0


def split_words(text: str) -> tuple[list[str], str]:
    """The words and the separator that joins them again.

    Where a script writes no spaces between words, pieces of LETTERS_PER_WORD characters.
    """
    if not _unspaced_letters(text):
        return text.split(" "), " "
    pieces = [text[start : start + LETTERS_PER_WORD] for start in range(0, len(text), LETTERS_PER_WORD)]
    return pieces, ""


def is_complete(text: str) -> bool:
    """Whether the text ends as a sentence does; always true in scripts that mark no ends."""
    if not text:
        return False
    greek_question = text[-1] in ";\u037e" and _is_greek(text)
    return text[-1] in END_MARKS or greek_question or _NO_SENTENCE_MARKS.match(text[-1]) is not None


def _is_greek(text: str) -> bool:
    return re.search(r"[\u0370-\u037d\u037f-\u03ff]", text) is not None
