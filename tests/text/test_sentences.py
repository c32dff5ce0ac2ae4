"""Sentences of many scripts: where they end, how many words they have, and that every script gives questions."""

import gzip
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from groundup.core.records import Document
from groundup.evaluate.tasks.passages import Passages
from groundup.text.sentences import count_words, is_complete, join_sentences, split_sentences, split_words


@pytest.mark.parametrize(
    "sentences",
    [
        ["It was late.", "The door opened.", "Nobody came!"],
        ["Das ist ca. so groß wie ein Haus.", "Ein neuer Satz."],
        ["Защита уступила 308 очков.", "Нападающий добавил шесть."],
        ["Η άμυνα παρέδωσε 308 πόντους.", "Ποιος ήταν πρώτος;", "Ο Κώστας ήταν."],
        ["لم يتخلى فريق بانثرز.", "هل فاز؟", "نعم فاز."],
        ["पैंथर्स ने 308 अंक दिए।", "साथी ने छह जोड़े।"],
        ["وہ گھر گیا۔", "پھر واپس آیا۔"],
    ],
    ids=["English", "German", "Russian", "Greek", "Arabic", "Hindi", "Urdu"],
)
def test_sentences_with_spaces_between_come_apart(sentences: list[str]) -> None:
    assert split_sentences(" ".join(sentences)) == sentences
    assert all(is_complete(sentence) for sentence in sentences)


@pytest.mark.parametrize(
    "sentences",
    [["黑豹队丢了308分。", "他的队友贡献了6次！", "是吗？"], ["彼は家に帰った。", "雨が降っていた。"]],
    ids=["Chinese", "Japanese"],
)
def test_chinese_and_japanese_need_no_space(sentences: list[str]) -> None:
    assert split_sentences("".join(sentences)) == sentences
    assert join_sentences(*sentences[:2]) == sentences[0] + sentences[1]


def test_thai_clauses_end_at_spaces() -> None:
    text = "ทีมรับของแพนเธอร์สถอดใจ ได้อันดับที่หกของลีก มาริโอ"
    assert split_sentences(text) == text.split()
    assert is_complete(text)


def test_a_semicolon_ends_a_sentence_in_greek_alone() -> None:
    assert split_sentences("One clause; Another one.") == ["One clause; Another one."]


def test_latin_text_is_split_as_its_own_rule_says() -> None:
    """The rule of Latin scripts alone, written out once more."""
    rule = re.compile(r"(?<=[.!?])[\"'”’)\]]*\s+(?=[\"'“‘(\[]?[A-Z0-9])")
    text = 'He said "Stop!" Then he left. "Why?" she asked. (It rained.) 3 of them came, e.g. the boy. A dot.py file.'
    assert split_sentences(text) == rule.split(text)


def test_words_are_counted_alike_with_and_without_spaces() -> None:
    assert count_words("five words are in this") == 5
    assert count_words("") == 0
    assert 3 <= count_words("黑豹队的防守只丢了分") <= 6  # Panthers' defence gave up only points


def test_every_script_gives_about_as_many_questions_as_german(shared_data: Path) -> None:
    questions: Counter[str] = Counter()
    path = shared_data / "pretrain" / "multilang" / "xquad_paragraphs.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            questions[row["lang"]] += len(
                Passages().examples(Document(row["id"], row["text"], "s", row["id"]))
            )
    assert set(questions) >= {"ru", "zh", "ar", "hi", "th", "el"}
    assert min(questions.values()) >= 0.75 * questions["de"] >= 100


@pytest.mark.parametrize(
    "text", ["a line\nand another one", "黑豹队丢了308分，他贡献了6次。", "ก็สวัสดี ครับผม", "Двери открылись."]
)
def test_words_joined_by_their_separator_are_the_text(text: str) -> None:
    words, separator = split_words(text)
    assert separator.join(words) == text
    assert len(words) >= 2
    assert (separator == "") == bool(re.search("[ก黑]", text))
