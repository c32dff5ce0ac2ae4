"""The benchmarks of learning: that their tables compare what they name, at sizes of a second."""

import json
import math
from functools import partial
from pathlib import Path

import pytest

from groundup.core.runtime import Runtime
from groundup.model import flops
from groundup.train.pretrain import Pretrain

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _benchmarks_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def parameters(recipe: Pretrain) -> int:
    return flops.parameters(recipe.architecture.config(recipe.depth, vocab_size=4096, max_seq_len=64))


def test_every_ablation_and_switch_changes_the_recipe_and_nothing_changes_its_size_much() -> None:
    from learning_runs import recipe
    from time_to_loss import ABLATIONS, SWITCHES

    base = {"depth": 4, "architecture": {"d_model": 256}}
    whole = recipe(base)
    for name, change in (ABLATIONS | SWITCHES).items():
        changed = recipe(change, base)
        assert changed != whole, name
        # Value embeddings are tables of their own: cheap to compute, not to keep.
        assert name == "value embeddings" or abs(parameters(changed) / parameters(whole) - 1) < 0.01, name


def test_the_baseline_is_brought_to_the_same_number_of_parameters() -> None:
    from learning_runs import recipe
    from time_to_loss import BASELINE, _as_large

    base = {"depth": 4, "architecture": {"d_model": 256}}
    wanted = parameters(recipe({"architecture": {"relu2": True}}, base)) + 90_000
    llama = _as_large(recipe(BASELINE, base), wanted, vocab=4096)
    assert abs(parameters(llama) / wanted - 1) < 0.001


def test_the_seconds_to_a_goal_are_read_off_between_two_horizons() -> None:
    from time_to_loss import seconds_to

    curve = [(100.0, 2.0), (200.0, 1.8), (400.0, 1.6)]
    assert math.isclose(seconds_to(1.8, curve, 100).ratio, 2)
    between = seconds_to(1.7, curve, 100)
    assert between.exact and math.isclose(between.seconds, 200 * math.sqrt(2))
    assert seconds_to(2.1, curve, 100).seconds == 100
    never = seconds_to(1.5, curve, 100)
    assert not never.exact and never.ratio == 4


def test_an_interval_is_students() -> None:
    from learning_runs import interval

    mean, half = interval([1.0, 2.0, 3.0])
    assert (mean, round(half, 4)) == (2.0, round(4.302653 / math.sqrt(3), 4))


def test_a_finished_run_is_looked_up_and_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import learning_runs
    from learning_runs import Runs, recipe

    monkeypatch.setattr(learning_runs, "Runtime", partial(Runtime, compile="off"))
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(30):
        words = " ".join(f"the cat {number} sat on mat {number * k % 17}." for k in range(60))
        (texts / f"{number}.txt").write_text(words, encoding="utf-8")
    folder = tmp_path / "out"
    tiny = recipe(
        {"depth": 1, "architecture": {"d_model": 32, "n_heads": 2}, "tokens": 512, "batch_tokens": 128}
    )
    runs = Runs(folder, [str(texts)], 300, 64, threads=1)
    first = runs(tiny)
    assert runs.tokens_in(tiny, first.tokens / first.tokens_per_second, trial_steps=4) == first.tokens
    log = folder / "runs.jsonl"
    assert [json.loads(line)["outcome"]["tokens"] for line in log.read_text().splitlines()] == [512]
    assert Runs(folder, [str(texts)], 300, 64, threads=1)(tiny) == first
    assert not list((folder / "artifacts").glob("pretrain-*"))


def test_initialisations_are_compared_at_equal_shape_batch_and_rates() -> None:
    from initialisation import one_run, rows_of
    from learning_runs import RunResult

    standard, induction = (one_run(init, 500_000, seed=1).resolved() for init in ("standard", "induction"))
    assert standard != induction
    assert standard == induction.model_copy(update={"init": "standard"})
    results = {
        500_000: {
            init: [RunResult(loss + seed / 100, 1, 1, 1.0) for seed in (0, 1)]
            for init, loss in {"standard": 1.5, "induction": 1.25}.items()
        }
    }
    head, rows = rows_of(results)
    assert (head[-1], rows) == ("gain", [["500,000", "1.5050", "1.2550", "+0.2500 +- 0.0000"]])
