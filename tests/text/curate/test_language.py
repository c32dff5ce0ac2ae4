"""Language identification, against the model asked alone and against sentences whose language is known."""

import gzip
import hashlib
import json
from collections import defaultdict
from pathlib import Path

import fasttext
import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from groundup.text.batch import DocumentBatch
from groundup.text.curate.steps.language import LANGUAGES, MODEL, Language
from groundup.text.curate.types import Rule
from groundup.text.documents import DOCUMENT_SCHEMA

ENGLISH = "The lighthouse keeper climbed the stairs every evening and lit the lamp before the ships came in."
GERMAN = "Der Leuchtturmwärter stieg jeden Abend die Treppe hinauf und zündete die Lampe an."
CHINESE = "每天晚上，灯塔看守人都会爬上楼梯，在船只进港之前点亮灯。"
NUMBERS = "12.5 | 77 | 4,103 | 9 | 0.1 | 55"


def batch(*texts: str, path: str = "a.txt") -> DocumentBatch:
    blank = dict.fromkeys(DOCUMENT_SCHEMA.names, "")
    rows = [blank | {"text": text, "path": path} for text in texts]
    return DocumentBatch(pa.Table.from_pylist(rows, DOCUMENT_SCHEMA))


def test_the_model_is_the_published_one_and_knows_what_we_say_it_knows() -> None:
    assert hashlib.md5(MODEL.read_bytes()).hexdigest() == "340156704bb8c8e50c4abf35a7ec2569"
    labels = fasttext.load_model(str(MODEL)).get_labels()
    assert {label.removeprefix("__label__") for label in labels} == LANGUAGES


def test_every_document_gets_its_language_and_none_is_dropped_by_default() -> None:
    said = Language().apply(batch(ENGLISH, GERMAN, CHINESE, NUMBERS))
    assert said.language == ["en", "de", "zh", "und"]
    assert said.reason == [None] * 4
    assert said.metrics["confidence"][3] == 0 and said.metrics["confidence"][:3].min() > 0.65


def test_other_languages_and_uncertain_ones_go_with_the_numbers_behind_it() -> None:
    said = Language(keep=("en",)).apply(batch(ENGLISH, GERMAN, NUMBERS))
    assert said.reason == [None, "language_not_kept", "language_uncertain"]
    confidence = said.metrics["confidence"]
    assert said.value == [None, confidence[1], 0]
    assert said.threshold == [None, None, 0.65]
    assert said.detail is not None and said.detail[1] == "de"
    assert Language(drop_unknown=True).apply(batch(ENGLISH, NUMBERS)).reason == [None, "language_uncertain"]
    assert Language(keep=("en",)).rules() == (Rule("language_uncertain", "confidence", at_least=0.65),)
    assert Language().rules() == ()


def test_source_code_is_no_language_and_passes() -> None:
    said = Language(keep=("de",)).apply(batch(ENGLISH, path="a.py"))
    assert (said.language, said.reason) == (["code"], [None])
    assert np.isnan(said.metrics["confidence"][0])


def test_line_ends_marks_and_capitals_change_nothing() -> None:
    broken = GERMAN.replace(" ", "\n")
    marked = f"</s> </S> {GERMAN}"
    said = Language().apply(batch(GERMAN, broken, marked, GERMAN.upper(), GERMAN.replace(" ", "\xa0")))
    assert said.language == ["de"] * 5
    assert said.metrics["confidence"][1] == said.metrics["confidence"][0]


def test_only_the_beginning_is_looked_at() -> None:
    assert Language(max_chars=len(GERMAN)).apply(batch(GERMAN + CHINESE * 20)).language == ["de"]


def test_a_batch_says_what_the_model_says_of_each_alone() -> None:
    texts = [ENGLISH, GERMAN, CHINESE, f"{NUMBERS} a", "e\u0301", "a\u3000", "x" * 9000]
    said = Language(min_confidence=0).apply(batch(*texts))
    model = fasttext.load_model(str(MODEL))
    for row, text in enumerate(texts):
        labels, chances = model.predict(text[:2048].lower().replace("\u3000", " "))
        assert said.language is not None and said.language[row] == labels[0].removeprefix("__label__")
        assert said.metrics["confidence"][row] == pytest.approx(min(1.0, chances[0]))


def test_an_empty_batch_is_fine() -> None:
    assert Language(keep=("en",)).apply(batch()).reason == []


def test_an_unknown_language_is_refused_with_the_near_ones() -> None:
    with pytest.raises(ValidationError, match=r"unknown language `eng`; near it: .*en"):
        Language(keep=("eng",))


def test_nearly_all_sentences_of_common_languages_are_identified(shared_data: Path) -> None:
    wanted = {"eng_Latn": "en", "deu_Latn": "de", "fra_Latn": "fr", "rus_Cyrl": "ru", "jpn_Jpan": "ja",
              "arb_Arab": "ar", "hin_Deva": "hi", "spa_Latn": "es", "vie_Latn": "vi", "tur_Latn": "tr"}  # fmt: skip
    sentences = defaultdict(list)
    with gzip.open(shared_data / "pretrain/multilang/flores200_dev_sentences.jsonl.gz", "rt") as file:
        for line in file:
            row = json.loads(line)
            sentences[row["lang"]].append(row["text"])
    for language, code in wanted.items():
        said = Language(min_confidence=0).apply(batch(*sentences[language])).language
        assert said is not None and said.count(code) >= 0.98 * len(said), language
