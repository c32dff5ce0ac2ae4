"""Shares of sources and languages, against what the formulas of the papers give."""

import numpy as np
import pytest

from groundup.text.curate.mix import Mix, MixInput, copies, draw, epochs


def corpus(**sizes: tuple[str, int, int]) -> MixInput:
    """source=(language, documents, bytes of each)."""
    parts = [(name, *said) for name, said in sizes.items()]
    count = sum(documents for _, _, documents, _ in parts)
    return MixInput(
        draw(np.arange(count, dtype=np.uint64), 7, 0),
        np.array([name for name, _, documents, _ in parts for _ in range(documents)], dtype=object),
        np.array([language for _, language, documents, _ in parts for _ in range(documents)], dtype=object),
        np.array([size for *_, documents, size in parts for _ in range(documents)]),
    )


def shares(made: MixInput, recipe: Mix) -> dict[str, float]:
    size = copies(made, recipe) * made.bytes
    names = sorted(set(made.source.tolist()))
    return {name: float(size[made.source == name].sum() / size.sum()) for name in names}


def test_weights_are_the_shares_and_no_cap_is_passed() -> None:
    made = corpus(web=("en", 20_000, 100), books=("en", 1_000, 400))
    recipe = Mix(weights={"web": 3.0, "books": 1.0})
    assert shares(made, recipe) == pytest.approx({"books": 0.25, "web": 0.75}, abs=0.01)
    assert copies(made, recipe).max() == 1
    assert epochs(made, recipe)["books", "en"] == pytest.approx(1.0)


def test_a_cap_above_one_repeats_documents() -> None:
    made = corpus(web=("en", 20_000, 100), books=("en", 1_000, 400))
    recipe = Mix(weights={"web": 1.0, "books": 1.0}, caps={"books": 4.0})
    assert shares(made, recipe) == pytest.approx({"books": 0.5, "web": 0.5}, abs=0.01)
    count = copies(made, recipe)[made.source == "books"]
    assert set(count.tolist()) == {4}


def test_what_a_cap_takes_from_one_source_the_others_get() -> None:
    made = corpus(a=("en", 1_000, 100), b=("en", 1_000, 100), c=("en", 8_000, 100))
    recipe = Mix(weights={"a": 8.0, "b": 1.0, "c": 1.0}, total_bytes=500_000)
    rate = epochs(made, recipe)
    assert rate["a", "en"] == pytest.approx(1.0)  # 100,000 bytes there are, 400,000 were wanted
    assert rate["b", "en"] == pytest.approx(1.0)  # then 200,000 for each of the others: b has 100,000
    assert rate["c", "en"] == pytest.approx(300_000 / 800_000)


def test_temperature_gives_small_languages_their_power_law_share() -> None:
    made = corpus(web=("en", 9_000, 100), wiki=("is", 1_000, 100))
    one = MixInput(made.id, np.full(10_000, "web", dtype=object), made.language, made.bytes)
    size = copies(one, Mix(temperature=2.0)) * one.bytes
    tempered = np.array([900_000.0, 100_000.0]) ** 0.5
    small = size[one.language == "is"].sum() / size.sum()
    assert small == pytest.approx(tempered[1] / tempered.sum(), abs=0.01)


def test_the_sample_depends_on_ids_and_seed_alone() -> None:
    made = corpus(web=("en", 5_000, 100), books=("en", 1_000, 100))
    recipe = Mix(weights={"web": 1.0, "books": 1.0}, seed=3)
    order = np.random.default_rng(0).permutation(len(made.id))
    mixed = MixInput(made.id[order], made.source[order], made.language[order], made.bytes[order])
    assert (copies(mixed, recipe) == copies(made, recipe)[order]).all()
    other = copies(made, Mix(weights={"web": 1.0, "books": 1.0}, seed=4))
    assert (other != copies(made, recipe)).any()
