"""A stage that is called here or on ranks, by what the runtime says."""

from pathlib import Path

import pytest

from groundup.core.builder import Builder
from groundup.core.errors import GroundupError
from groundup.core.progress import Reporter
from groundup.core.runtime import Layout, Runtime
from groundup.core.stage import StageContext
from groundup.core.store import Store
from groundup.parallel.stage_runner import ranks_of, run_stage
from groundup.train.pretrain import pretrain
from training_helpers import SITE, Inputs, inputs, recipe


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return inputs(tmp_path_factory.mktemp("inputs"))


def test_one_rank_is_the_default_on_a_cpu() -> None:
    assert ranks_of(Runtime(device="cpu")) == 1
    assert ranks_of(Runtime(device="cpu", ranks=3)) == 3


def test_a_layout_that_does_not_fit_is_refused_before_anything_starts(
    given: Inputs, work: StageContext
) -> None:
    runtime = SITE.model_copy(update={"layout": Layout(tensor=2)})
    with pytest.raises(
        GroundupError, match=r"1 x 1 x 2 = 2 does not divide the number of ranks, 1 \(runtime.ranks\)"
    ):
        run_stage(pretrain, recipe(1), runtime, work, {"tokens": given.tokens, "tokenizer": given.tokenizer})


def test_rows_that_ranks_cannot_share_are_named(given: Inputs, work: StageContext) -> None:
    runtime = SITE.model_copy(update={"ranks": 3})
    with pytest.raises(
        GroundupError, match=r"is 4 rows of 32 tokens a step, which 3 data-parallel ranks can't divide"
    ):
        run_stage(pretrain, recipe(1), runtime, work, {"tokens": given.tokens, "tokenizer": given.tokenizer})


def test_the_builder_makes_the_same_artifact_on_two_ranks(given: Inputs, tmp_path: Path) -> None:
    made = []
    for ranks in (1, 2):
        runtime = SITE.model_copy(update={"ranks": ranks})
        builder = Builder(Store(tmp_path / str(ranks)), runtime, Reporter(quiet=True), runner=run_stage)
        made.append(builder(pretrain, recipe(4), given.tokens, given.tokenizer))
    one, two = made
    assert one.fingerprint == two.fingerprint
    assert {path.name for path in one.path.iterdir()} == {path.name for path in two.path.iterdir()}
    for name in ("parameters", "tokens", "decoder", "steps"):
        assert one.metrics()[name] == two.metrics()[name]
    assert two.metrics()["val_bpb"] == pytest.approx(one.metrics()["val_bpb"], rel=1e-3)
