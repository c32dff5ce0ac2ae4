"""Named people are replaced; tried with a small spaCy pipeline of rules, since trained ones are no part of spaCy."""

import sys

import pyarrow as pa
import pytest

from groundup.core.errors import BlueprintError
from groundup.text.batch import DocumentBatch
from groundup.text.curate.steps import names
from groundup.text.curate.steps.names import PIECE, Names
from groundup.text.documents import DOCUMENT_SCHEMA


def batch(*texts: str) -> DocumentBatch:
    blank = dict.fromkeys(DOCUMENT_SCHEMA.names, "")
    return DocumentBatch(pa.Table.from_pylist([blank | {"text": text} for text in texts], DOCUMENT_SCHEMA))


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> str:
    spacy = pytest.importorskip("spacy", reason="spaCy, the extra `names`, isn't installed")
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns(
        [
            {"label": "PERSON", "pattern": [{"LOWER": "ada"}, {"LOWER": "lovelace"}]},
            {"label": "PERSON", "pattern": "Jürgen"},
            {"label": "GPE", "pattern": "London"},
        ]
    )
    folder = tmp_path_factory.mktemp("spacy") / "people"
    nlp.to_disk(folder)
    return str(folder)


def test_people_are_replaced_and_places_are_not(pipeline: str) -> None:
    said = Names(pipeline=pipeline).apply(
        batch("Ada Lovelace met Jürgen in London.", "", "In London it rained.", "“Jürgen!”")
    )
    assert said.text == ["<PERSON> met <PERSON> in London.", None, None, "“<PERSON>!”"]
    assert said.reason == ["redacted", None, None, "redacted"] and said.value == [2.0, None, None, 1.0]
    assert said.metrics["names"].tolist() == [2, 0, 0, 1]


def test_other_labels_can_be_named(pipeline: str) -> None:
    said = Names(pipeline=pipeline, labels=("GPE",)).apply(batch("Ada Lovelace lived in London."))
    assert said.text == ["Ada Lovelace lived in <PERSON>."]


def test_a_text_longer_than_spacy_takes_is_read_in_pieces(pipeline: str) -> None:
    text = "Nobody came. " * (PIECE // 6) + "\nAda Lovelace did.\n" + "x" * (2 * PIECE) + " Jürgen"
    said = Names(pipeline=pipeline).apply(batch(text))
    assert said.text == [text.replace("Ada Lovelace", "<PERSON>").replace("Jürgen", "<PERSON>")]


@pytest.mark.parametrize("text", ["", "x", "a b\n" * PIECE, "y" * (3 * PIECE), "word " * PIECE])
def test_pieces_make_up_the_text(text: str) -> None:
    pieces = list(names._pieces(text))
    assert "".join(piece for _, piece in pieces) == text and all(len(piece) <= PIECE for _, piece in pieces)
    assert all(text.startswith(piece, at) for at, piece in pieces)


def test_a_missing_pipeline_is_an_error_that_says_what_to_install(pipeline: str) -> None:
    with pytest.raises(BlueprintError, match=r"no spaCy pipeline `xx_nowhere`.*spacy download xx_nowhere"):
        Names(pipeline="xx_nowhere").apply(batch("Ada"))


def test_without_spacy_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spacy", None)
    names._load.cache_clear()
    with pytest.raises(BlueprintError, match=r"pip install 'groundup\[names\]'"):
        Names(pipeline="any").apply(batch("Ada"))
