"""Fine-tuning and reward models with DeepSpeed on two ranks against the native engine on one rank."""

import sys
from pathlib import Path

import pytest

from groundup.core.errors import GroundupError
from groundup.parallel.engines.deepspeed import DeepSpeed
from groundup.parallel.launcher import launch

pytest.importorskip("deepspeed", reason="needs the extra `deepspeed`: make test-engines")
sys.path.insert(0, str(Path(__file__).parents[1] / "align"))

from align_helpers import examples, start, tokenizer
from align_ranks import align_all
from engines_helpers import TIMEOUT
from test_align_on_ranks import LORA, RUNTIME, OneRank, assert_same_result, one_rank

from groundup.evaluate.tasks import Example

__all__ = ["examples", "one_rank", "start", "tokenizer"]

pytestmark = pytest.mark.engines


@pytest.mark.parametrize("stage", [2, 3])
def test_sft_and_reward_models_are_those_of_the_native_engine(
    stage: int, one_rank: OneRank, examples: list[Example], start: Path, tmp_path: Path
) -> None:
    runtime = RUNTIME.model_copy(update={"engine": DeepSpeed.model_validate({"stage": stage})})
    cases = {name: one_rank.cases[name] for name in ("sft", "reward")}
    launch(align_all, (cases, runtime, tmp_path, examples, start), 2, TIMEOUT)
    for name in cases:
        assert_same_result(tmp_path, one_rank, name)


def test_adapters_are_refused(examples: list[Example], start: Path, tmp_path: Path) -> None:
    runtime = RUNTIME.model_copy(update={"engine": DeepSpeed()})
    with pytest.raises(GroundupError, match=r"trains all weights\. Set lora_rank = 0"):
        launch(align_all, ({"sft": (LORA, {"start": start})}, runtime, tmp_path, examples, start), 2, TIMEOUT)
