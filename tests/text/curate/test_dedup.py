"""Duplicates, against Python sets of word strings."""

import gzip
import random
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from groundup.core.errors import BlueprintError
from groundup.text.batch import DocumentBatch
from groundup.text.curate.dedup import Dedup, verify_pairs
from groundup.text.curate.dedup.clusters import Duplicates, find_duplicates
from groundup.text.curate.dedup.minhash import band_keys, minhash, permutations, shingles
from groundup.text.curate.dedup.repeated_spans import cut_repeats, mark_repeats
from groundup.text.curate.dedup.signatures import text_key, write_signatures
from groundup.text.curate.dedup.verify_pairs import Floats
from groundup.text.curate.steps.repeated_lines import RepeatedLines
from groundup.text.documents import DOCUMENT_SCHEMA
from groundup.text.segment import Ints

DATA = Path(__file__).parents[4] / "shared" / "data"
ARTICLES = DATA / "web" / "dedup"
WORDS = [f"word{number}" for number in range(500)]


def batch(*texts: str, path: str = "a.txt") -> DocumentBatch:
    blank = dict.fromkeys(DOCUMENT_SCHEMA.names, "")
    return DocumentBatch(
        pa.Table.from_pylist([blank | {"text": text, "path": path} for text in texts], DOCUMENT_SCHEMA)
    )


def textbook(text: str, n: int = 5) -> set[str]:
    words = re.findall(r"\w+", text.lower())
    if len(words) <= n:
        return {" ".join(words)} - {""}
    return {" ".join(words[at : at + n]) for at in range(len(words) - n + 1)}


def jaccard(a: str, b: str) -> float:
    one, other = textbook(a), textbook(b)
    return len(one & other) / len(one | other) if one or other else 0.0


def prose(seed: int, words: int) -> str:
    draw = random.Random(seed)
    return " ".join(draw.choice(WORDS) for _ in range(words))


def with_changes(text: str, share: float, seed: int) -> str:
    draw = random.Random(seed)
    return " ".join("changed" if draw.random() < share else word for word in text.split())


def corpus() -> list[str]:
    """A hundred texts and edited copies of them, some near, some far, shuffled."""
    texts = [prose(seed, 60 + seed) for seed in range(100)]
    texts += [with_changes(texts[seed], seed / 1500, seed) for seed in range(100)]
    random.Random(0).shuffle(texts)
    return texts


def found(
    folder: Path,
    shards: Sequence[Sequence[str]],
    recipe: Dedup,
    scores: Sequence[float] | None = None,
    cut: int = 7,
) -> Duplicates:
    folders = [folder / f"{number:05d}" for number in range(len(shards))]
    for place, texts in zip(folders, shards, strict=True):
        parts = (batch(*texts[at : at + cut]) for at in range(0, len(texts), cut))
        write_signatures(place, parts, recipe)
    return find_duplicates(folders, recipe, None if scores is None else np.array(scores))


def dropped(duplicates: Duplicates) -> dict[int, tuple[int, float, str]]:
    """Row -> kept row, similarity, kind, of a corpus in one shard."""
    columns = (duplicates.row, duplicates.kept_row, duplicates.similarity, duplicates.kind)
    return {
        int(row): (int(kept), float(value), str(kind))
        for row, kept, value, kind in zip(*columns, strict=True)
    }


def test_sets_of_ngrams_have_the_textbook_sizes_and_overlaps() -> None:
    texts = [
        prose(1, 300),
        with_changes(prose(1, 300), 0.02, 2),
        "Größe, größe! größe; Größe größe größe groß",
        "a b",
        "",
    ]
    sets, first = shingles(batch(*texts).plain_words, 5)
    each = [set(sets[a:b].tolist()) for a, b in pairwise(first)]
    sizes = [len(textbook(text)) for text in texts[:3]]
    assert [len(one) for one in each] == [*sizes, 2, 0], "a short text is the two halves of one hash"
    assert len(each[0] & each[1]) == len(textbook(texts[0]) & textbook(texts[1]))


def test_minima_equal_the_loop_over_every_ngram() -> None:
    sets = np.random.default_rng(0).integers(0, 1 << 32, 4000, dtype=np.uint32)
    first = np.array([0, 3, 3, 2500, 4000])
    multipliers = permutations(9, seed=3)
    got = minhash(sets, first, multipliers)
    for document in (0, 2, 3):
        mine = [int(value) for value in sets[first[document] : first[document + 1]]]
        assert got[document].tolist() == [min(x * int(a) % 2**32 for x in mine) for a in multipliers]
    assert (got[1] == 2**32 - 1).all(), "an empty set has no minimum"
    assert permutations(5, seed=3).tolist() == multipliers[:5].tolist() != permutations(5, seed=4).tolist()


@pytest.mark.parametrize("similarity", [0.3, 0.6, 0.9])
def test_minima_agree_as_often_as_the_sets_are_alike(similarity: float) -> None:
    draw = np.random.default_rng(7)
    size, agreements = 400, []
    shared = round(2 * size * similarity / (1 + similarity))
    for _ in range(20):
        both = draw.integers(0, 1 << 32, 2 * size - shared, dtype=np.uint32)
        sets = np.concatenate([both[:size], both[-size:]])
        one, other = minhash(sets, np.array([0, size, 2 * size]), permutations(512, seed=1))
        agreements.append((one == other).mean())
    true = shared / (2 * size - shared)
    spread = (true * (1 - true) / 512) ** 0.5
    assert np.mean(agreements) == pytest.approx(true, abs=4 * spread / 20**0.5)
    assert np.std(agreements) < 1.6 * spread, "the permutations are independent of one another"


def test_a_band_key_is_equal_where_all_its_minima_are() -> None:
    minimum = np.array([[1, 2, 3, 4], [1, 2, 4, 3], [2, 1, 3, 4]], np.uint32)
    keys = band_keys(minimum, bands=2, rows=2)
    assert keys.shape == (2, 3)
    assert keys[0, 0] == keys[0, 1] != keys[0, 2]
    assert keys[1, 0] == keys[1, 2] != keys[1, 1]


def test_near_duplicates_are_found_and_their_similarity_is_true(tmp_path: Path) -> None:
    texts = corpus()
    lost = dropped(found(tmp_path, [texts], Dedup(bands=30)))
    assert 35 < len(lost) < 100
    for row, (kept, similarity, kind) in lost.items():
        assert similarity == pytest.approx(jaccard(texts[row], texts[kept]))
        assert similarity >= 0.8
        assert (kind == "exact") == (texts[row] == texts[kept])
    alone = [text for row, text in enumerate(texts) if row not in lost]
    far = [(a, b) for at, a in enumerate(alone) for b in alone[at + 1 :] if jaccard(a, b) >= 0.82]
    assert not far, "nothing alike is left"


def test_the_result_depends_neither_on_shards_nor_on_batches(tmp_path: Path) -> None:
    texts, recipe = corpus(), Dedup()
    whole = found(tmp_path / "whole", [texts], recipe, cut=1000)
    parts = found(tmp_path / "parts", [texts[:30], texts[30:30], texts[30:121], texts[121:]], recipe, cut=3)
    first = np.array([0, 30, 30, 121])
    assert (first[parts.shard] + parts.row).tolist() == whole.row.tolist()
    assert (first[parts.kept_shard] + parts.kept_row).tolist() == whole.kept_row.tolist()
    assert parts.similarity.tolist() == whole.similarity.tolist()


def test_comparing_in_small_portions_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = corpus()
    whole = dropped(found(tmp_path / "a", [texts], Dedup()))
    monkeypatch.setattr(verify_pairs, "_AT_ONCE", 100)
    assert dropped(found(tmp_path / "b", [texts], Dedup())) == whole


def test_short_texts_are_duplicates_only_if_their_words_are_equal(tmp_path: Path) -> None:
    texts = [
        "Yes, we can",
        "yes we can!",
        "we can, yes",
        "",
        " ",
        "...",
        "¡",
        "one two three four five",
        "yes we  can!",
    ]
    lost = dropped(found(tmp_path, [texts], Dedup(keep="earliest")))
    assert lost == {1: (0, 1.0, "near"), 4: (3, 1.0, "exact"), 8: (0, 1.0, "near")}


def test_exact_keys_pass_over_white_space_and_composition_alone() -> None:
    assert text_key("caf\u00e9\tau lait\n") == text_key("cafe\u0301 au\u3000lait")
    assert text_key("a b\n") == text_key("a\x1cb") != text_key("A b")
    assert text_key("naïve one") == text_key("naïve\x1d one")


def test_without_fuzzy_only_equal_texts_are_duplicates(tmp_path: Path) -> None:
    texts = [prose(1, 50), prose(1, 50) + " more", prose(2, 50), prose(1, 50) + "\n"]
    lost = dropped(found(tmp_path, [texts], Dedup(fuzzy=False)))
    assert lost == {0: (3, 1.0, "exact")}, "the longer of the two stays"
    assert not dropped(found(tmp_path, [texts], Dedup(fuzzy=False, exact=False)))


def test_keep_decides_which_of_a_cluster_stays(tmp_path: Path) -> None:
    text = prose(5, 200)
    texts = [text, f"{text} tail", f"{text} tail", text.upper()]
    stays = {
        keep: {
            kept
            for kept, _, _ in dropped(
                found(tmp_path, [texts], Dedup.model_validate({"keep": keep}), scores)
            ).values()
        }
        for keep, scores in (("longest", None), ("earliest", None), ("best", [0.1, np.nan, 0.2, 0.9]))
    }
    assert stays == {"longest": {1}, "earliest": {0}, "best": {3}}
    with pytest.raises(BlueprintError, match="needs a step that scores"):
        found(tmp_path, [texts], Dedup(keep="best"))


def test_what_is_connected_through_others_says_how_far_apart_it_is(tmp_path: Path) -> None:
    words = [f"w{number}" for number in range(400)]
    texts = [" ".join(words[at : at + 200]) for at in (0, 15, 30, 45)]
    lost = dropped(found(tmp_path, [texts], Dedup(keep="earliest", bands=40)))
    assert {row: kept for row, (kept, _, _) in lost.items()} == {1: 0, 2: 0, 3: 0}
    assert lost[3][1] == pytest.approx(jaccard(texts[0], texts[3])) and lost[3][1] < 0.7


def test_a_full_bucket_costs_a_few_comparisons_per_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[int] = []
    original = verify_pairs.ShingleStore.similarities

    def counted(self: verify_pairs.ShingleStore, left: Ints, right: Ints) -> Floats:
        compared.append(len(left))
        return original(self, left, right)

    monkeypatch.setattr(verify_pairs.ShingleStore, "similarities", counted)
    banner = prose(1, 60)
    texts = [f"{banner} {prose(seed, 60)}" for seed in range(2, 302)]
    assert not dropped(found(tmp_path, [texts], Dedup(bands=2, rows=1)))
    assert 300 < sum(compared) <= 2 * 300 * verify_pairs._ROUNDS


@pytest.mark.parametrize("size", [100, 1000])
def test_planted_plagiarism_is_found_and_nothing_else(tmp_path: Path, size: int) -> None:
    if not ARTICLES.is_dir():
        pytest.skip("needs the articles in shared/data/web/dedup")
    lines = gzip.decompress((ARTICLES / f"articles_{size}.train.gz").read_bytes()).decode().splitlines()
    ids = [line.split(" ", 1)[0] for line in lines]
    truth = {
        frozenset(line.split()) for line in (ARTICLES / f"articles_{size}.truth").read_text().splitlines()
    }
    lost = dropped(found(tmp_path, [[line.split(" ", 1)[1] for line in lines]], Dedup(), cut=64))
    assert {frozenset((ids[row], ids[kept])) for row, (kept, _, _) in lost.items()} == truth


def test_a_truncated_file_is_an_error_and_not_a_difference(tmp_path: Path) -> None:
    folder = tmp_path / "00000"
    write_signatures(folder, [batch(prose(1, 80), prose(1, 81))], Dedup())
    np.save(folder / "shingles.npy", np.load(folder / "shingles.npy")[:-4])
    with pytest.raises(AssertionError, match="00000"):
        find_duplicates([folder], Dedup())


MENU = "Home | News | About us and our partners"
LINES = Dedup(exact=False, fuzzy=False, lines=1)
STORY = ["The first line of a story.", "It goes on for a while.", "Then it ends."]


def after_cut(
    folder: Path, texts: list[str], recipe: Dedup, gone: Sequence[int] = ()
) -> list[tuple[str | None, str | None]]:
    folders = [folder / name for name in "ab"]
    halves = [texts[:2], texts[2:]]
    for place, half in zip(folders, halves, strict=True):
        write_signatures(place, [batch(text) for text in half], recipe)
    lost = [np.isin(np.arange(len(half)) + 2 * at, gone) for at, half in enumerate(halves)]
    mark_repeats(folders, recipe, lost)
    out: list[tuple[str | None, str | None]] = []
    for place, half in zip(folders, halves, strict=True):
        rows = np.arange(len(half))[::-1]
        verdicts = cut_repeats(batch(*half[::-1]), rows, place, recipe)
        assert verdicts.text is not None
        changed = zip(verdicts.reason, verdicts.text, half[::-1], strict=True)
        out += [(reason, text if reason else old) for reason, text, old in changed][::-1]
    return out


def test_a_line_said_before_is_cut_from_every_later_document(tmp_path: Path) -> None:
    texts = [f"{MENU}\nOne thing.\n", f"Another.\n  {MENU}  \nEnd.", f"Grüße\n\n{MENU}", MENU]
    assert after_cut(tmp_path, texts, LINES) == [
        (None, texts[0]),
        ("repeated_lines", "Another.\nEnd."),
        ("repeated_lines", "Grüße\n\n"),
        ("repeated_lines", None),
    ]


def test_the_first_occurrence_is_one_that_is_kept(tmp_path: Path) -> None:
    texts = [f"{MENU}\nOne thing.\n", f"Another.\n{MENU}\nEnd.", f"Third.\n{MENU}\nEnd of it.", "Last."]
    cut = after_cut(tmp_path, texts, LINES, gone=[0])
    assert [text for _, text in cut][1:3] == [texts[1], "Third.\nEnd of it."]


def test_three_lines_are_cut_only_as_three(tmp_path: Path) -> None:
    story = "\n".join(STORY)
    texts = [
        story,
        f"Quoted:\n\n{story}\nSo far.",
        f"{STORY[0]}\n{STORY[1]}\nThen it goes on.",
        f"{story}\n{story}\n",
    ]
    assert after_cut(tmp_path, texts, Dedup(exact=False, fuzzy=False, lines=3)) == [
        (None, story),
        ("repeated_lines", "Quoted:\n\nSo far."),
        (None, texts[2]),
        ("repeated_lines", None),
    ]


def test_paragraphs_are_cut_as_a_whole(tmp_path: Path) -> None:
    story = "\n".join(STORY)
    texts = [f"{story}\n\nA comment.\n", f"A title.\n \n{story}\n\nAnother comment.", f"{story}\nno end", "x"]
    assert after_cut(tmp_path, texts, Dedup(exact=False, fuzzy=False, paragraphs=True)) == [
        (None, texts[0]),
        ("repeated_paragraphs", "A title.\n \n\nAnother comment."),
        (None, texts[2]),
        (None, "x"),
    ]


def test_hashes_in_parts_are_marked_like_hashes_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(1)
    texts = ["\n".join(f"line number {draw.randrange(60)}" for _ in range(30)) for _ in range(4)]
    whole = after_cut(tmp_path / "a", texts, LINES)
    monkeypatch.setattr("groundup.text.curate.dedup.repeated_spans._AT_ONCE", 10)
    assert after_cut(tmp_path / "b", texts, LINES) == whole
    said: list[str] = []
    for _, text in whole:
        said += (text or "").split()[2::3]
    assert len(said) == len(set(said))


def test_a_document_repeats_no_line_of_its_own_but_code_does() -> None:
    footer = "Page 1 of the annual report, all rights reserved"
    texts = [f"Intro.\n{footer}\nBody.\n{footer}\nok\nok\n", f"{footer}\n"]
    verdicts = RepeatedLines().apply(batch(*texts))
    assert verdicts.reason == ["repeated_lines", None]
    assert verdicts.text == [f"Intro.\n{footer}\nBody.\nok\nok\n", None]
    assert verdicts.value[0] == pytest.approx((len(footer) + 1) / len(texts[0]))
    assert RepeatedLines().apply(batch(*texts, path="a.py")).reason == [None, None]
    assert RepeatedLines().apply(batch()).reason == []
