"""Evaluation items in documents, against a brute-force search for shared n-grams."""

import bz2
import gzip
import json
import lzma
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import zstandard

from groundup.core.errors import DataError
from groundup.text.batch import DocumentBatch
from groundup.text.curate.decontaminate import Decontaminate, Decontaminator, write_index
from groundup.text.curate.eval_texts import evaluation_items, item_digest
from groundup.text.documents import DOCUMENT_SCHEMA

WORDS = ("river", "stone", "light", "water", "mountain", "cloud", "paper", "ship", "engine", "letter", "window",
         "garden", "bridge", "number", "colour")  # fmt: skip


def sentence(seed: int, words: int) -> str:
    draw = random.Random(seed)
    return " ".join(f"{draw.choice(WORDS)}{draw.randrange(50)}" for _ in range(words))


def batch(*texts: str) -> DocumentBatch:
    blank = dict.fromkeys(DOCUMENT_SCHEMA.names, "")
    rows = [blank | {"id": f"{n:016x}", "text": text} for n, text in enumerate(texts)]
    return DocumentBatch(pa.Table.from_pylist(rows, DOCUMENT_SCHEMA))


def made(tmp_path: Path, items: list[str], **settings: object) -> Decontaminator:
    recipe = Decontaminate(paths=("x",), **settings)  # type: ignore[arg-type]
    write_index(recipe, ((f"set.jsonl#{n}", [text]) for n, text in enumerate(items, 1)), tmp_path)
    return Decontaminator.load(recipe, tmp_path)


def brute(document: str, item: str, n: int, least: int) -> bool:
    def grams(text: str, size: int) -> set[tuple[str, ...]]:
        words = re.findall(r"\w+", text.lower())
        return {tuple(words[at : at + size]) for at in range(len(words) - size + 1)}

    words = len(re.findall(r"\w+", item))
    return words >= least and bool(grams(document, min(n, words)) & grams(item, min(n, words)))


def test_matches_equal_a_brute_force_search(tmp_path: Path) -> None:
    items = [sentence(seed, 5 + seed) for seed in range(30)]
    draw = random.Random(1)
    documents = []
    for seed in range(60):
        words = sentence(1000 + seed, 60).split()
        source = items[draw.randrange(30)].split()
        size = draw.randrange(4, 25)
        at = draw.randrange(max(len(source) - size, 0) + 1)
        documents.append(" ".join(words[:20] + source[at : at + size] + words[20:]).title() + ", so?")
    judge = made(tmp_path, items, ngram=13, min_words=8)
    here = batch(*documents)
    expected = [[brute(text, item, 13, 8) for item in items] for text in documents]
    assert [why is not None for why in judge.apply(here).reason] == [any(row) for row in expected]
    hits = judge.hits(here, np.ones(60, dtype=bool)).to_pylist()
    found = {(hit["id"], hit["item"]) for hit in hits}
    assert found == {
        (f"{row:016x}", f"set.jsonl#{item + 1}")
        for row in range(60)
        for item in range(30)
        if expected[row][item]
    }
    assert len({sum(row) for row in expected}) > 1
    for hit in hits:
        assert brute(hit["text"], items[int(hit["item"].split("#")[1]) - 1], 13, 8)


def test_the_item_goes_where_the_recipe_says_so(tmp_path: Path) -> None:
    item = sentence(1, 20)
    judge = made(tmp_path, [item], drop="item")
    here = batch(f"before {item} after")
    assert judge.apply(here).reason == [None]
    (hit,) = judge.hits(here, np.ones(1, dtype=bool)).to_pylist()
    assert (hit["item"], hit["overlap"], hit["task"]) == ("set.jsonl#1", 8, "set.jsonl")


def test_every_text_of_a_record_is_an_item_and_bad_files_are_named(tmp_path: Path) -> None:
    file = tmp_path / "set.jsonl"
    file.write_text(json.dumps({"q": "a b", "choices": ["c", {"d": "e"}], "gold": 1}) + "\n")
    assert list(evaluation_items([str(file)])) == [("set.jsonl#1", ["a b", "c", "e"])]
    before = item_digest([str(file)])
    file.write_text("{broken\n")
    assert item_digest([str(file)]) != before
    with pytest.raises(DataError, match=r"set\.jsonl, line 1: not JSON"):
        list(evaluation_items([str(file)]))
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="neither JSON lines"):
        list(evaluation_items([str(tmp_path / "notes.txt")]))


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstandard.compress])
def test_compressed_evaluation_sets_are_read_and_damaged_ones_refused(pack: Any, tmp_path: Path) -> None:
    suffix = {gzip.compress: "gz", bz2.compress: "bz2", lzma.compress: "xz"}.get(pack, "zst")
    file = tmp_path / f"set.jsonl.{suffix}"
    file.write_bytes(pack(b'{"q": "a b"}\n'))
    assert list(evaluation_items([str(file)])) == [(f"set.jsonl.{suffix}#1", ["a b"])]
    file.write_bytes(pack(b'{"q": "a b"}\n') + b"rubbish")
    with pytest.raises(DataError, match=r"is damaged: byte \d+"):
        list(evaluation_items([str(file)]))


ZEROS = "0 0 0 1 0 0 0 0 1 0 0 0 0 0 1 0 x y 0 0 1 0 0 0 the the the the the the the the the"


@pytest.mark.parametrize(
    "item", [ZEROS, "a b c d e f g h i j k l m n o", "foo bar " * 20, "1.5 2.5 3.5 " * 9]
)
def test_an_item_without_distinct_words_matches_nothing(item: str, tmp_path: Path) -> None:
    judge = made(tmp_path, [item, sentence(3, 20)])
    assert judge.apply(batch(f"A table: {item}.", sentence(3, 20))).reason == [None, "evaluation_item"]
    assert made(tmp_path, [item], min_distinct=1).apply(batch(item)).reason in (["evaluation_item"], [None])


def test_recall_is_reported_at_several_overlaps_and_is_what_matching_gives(tmp_path: Path) -> None:
    items = [words_only(n, 8 + n % 60) for n in range(120)]
    recipe = Decontaminate(paths=("x",))
    metrics = write_index(recipe, ((f"s.jsonl#{n}", ["id", item]) for n, item in enumerate(items)), tmp_path)
    judge = Decontaminator.load(recipe, tmp_path)
    for percent in (100, 75, 50, 25):
        parts = [" ".join(item.split()[: len(item.split()) * percent // 100]) for item in items]
        found = sum(
            reason is not None
            for reason in judge.apply(batch(*(f"before {part} after" for part in parts))).reason
        )
        assert metrics[f"items_found_at_{percent}_percent"] == found
    assert metrics["items_found_at_100_percent"] == 120 > metrics["items_found_at_25_percent"]


def words_only(seed: int, words: int) -> str:
    draw = random.Random(seed)
    return " ".join(draw.choice(WORDS) + "abcdefghijklmnop"[draw.randrange(16)] for _ in range(words))
