"""The rules, against textbook counts."""

from collections import Counter

import pyarrow as pa
import pytest
from pydantic import ValidationError

from groundup.core.slot import Slot
from groundup.text.documents import DOCUMENT_SCHEMA
from groundup.text.steps.length import Length
from groundup.text.steps.repetition import Repetition, repeated_share, top_ngram_shares


def table(*texts: str, path: str = "a.txt") -> pa.Table:
    blank = dict.fromkeys(DOCUMENT_SCHEMA.names, "")
    return pa.Table.from_pylist([blank | {"text": text, "path": path} for text in texts], DOCUMENT_SCHEMA)


def textbook_top_share(text: str, n: int) -> float:
    words = [word for word in text.split() if any(char.isalnum() for char in word)]
    grams = Counter(tuple(words[at : at + n]) for at in range(len(words) - n + 1))
    most = max(grams.values(), default=0)
    if len(words) < 2 * n or most < 2:
        return 0.0
    longest = max(sum(map(len, gram)) for gram, count in grams.items() if count == most)
    return min(1.0, most * longest / sum(map(len, words)))


@pytest.mark.parametrize("n", [2, 3, 4])
def test_top_ngram_shares_equal_the_textbook(n: int) -> None:
    texts = [
        "the cat sat on the mat and the cat sat still",
        "",
        "one",
        "a b a b a b a b a b",
        "| --- | --- | x y | --- | --- | x y z x y z x y",
        "all of these words differ here now then",
        "größe höhe größe höhe tiefe größe höhe tiefe 東京 大阪",
    ]
    shares = top_ngram_shares(pa.array(texts), (n,))[n]
    assert shares == pytest.approx([textbook_top_share(text, n) for text in texts])


def test_repeated_share_counts_every_later_copy() -> None:
    assert repeated_share(["aa", "b", "aa", "aa"]) == (0.5, pytest.approx(4 / 7))
    assert repeated_share(["a"]) == repeated_share([]) == (0.0, 0.0)


def test_words_of_unspaced_scripts_are_counted_by_character() -> None:
    rule = Length(min_chars=0, min_words=5)
    chinese, short = "我们在海边看见灯塔。", "only four words here"
    assert rule.judge(table(chinese, short)).reason == [None, "too_few_words"]


def test_code_may_repeat_lines_that_prose_may_not() -> None:
    body = "\n".join(f"def number_{n}(self, other):\n    return NotImplemented" for n in range(20))
    assert Repetition().judge(table(body, path="a.py")).reason == [None]
    assert Repetition().judge(table(body)).reason == ["repeated_lines"]
    assert Repetition().judge(table("x = 1\n" * 99, path="a.py")).reason == ["repeated_line_chars"]


def test_a_sentence_that_says_two_words_twice_is_kept() -> None:
    sentence = "He who laughs last laughs best, and he who laughs loudest laughs alone."
    assert Repetition().judge(table(sentence)).reason == [None]
    assert Repetition(min_words=0, max_2gram=0.1).judge(table(sentence)).reason == ["repeated_2gram"]


def test_rulers_and_borders_do_not_count() -> None:
    rows = "\n".join(f"+-------+\n| row {n} is {'abcdefghij'[n] * 9} |" for n in range(10))
    assert Repetition(min_words=0, max_2gram=1, max_3gram=1, max_4gram=1).judge(table(rows)).reason == [None]


def test_bounds_that_nothing_can_pass_are_refused() -> None:
    with pytest.raises(ValidationError, match="min_chars = 10 is above max_chars = 5"):
        Length(min_chars=10, max_chars=5)


@pytest.mark.parametrize("name", Slot("groundup.text.steps").names())
def test_every_step_judges_empty_and_odd_tables(name: str) -> None:
    step = Slot("groundup.text.steps").load(name)()
    for documents in (table(), table("", "x", "\n\n\n", "\u2028", "🙂" * 50, "a b " * 5000)):
        verdicts = step.judge(documents)
        assert len(verdicts.reason) == len(verdicts.value) == len(verdicts.threshold) == documents.num_rows
