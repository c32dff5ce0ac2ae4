"""Layouts that are found: the simplest in which a step fits."""

from pathlib import Path

import pytest

from groundup.core.errors import GroundupError
from groundup.core.runtime import Layout
from groundup.model.architectures.llama import Llama
from groundup.model.architectures.qwen3_moe import Qwen3MoE
from groundup.model.config import DecoderConfig
from groundup.parallel.context import check_layout
from groundup.parallel.launcher import launch
from groundup.parallel.layout import Cluster, find_layout
from groundup.parallel.memory_estimate import memory_parts, tokens_that_fit
from ranks_helpers import curve, pretrainings
from training_helpers import SITE, inputs, recipe

GB = 10**9
SEQ_LEN = 4096
SMALL = Llama(d_model=2048, n_heads=32, n_kv_heads=8, d_ff=8192).config(16, 128_256, SEQ_LEN)
LARGE = Llama(d_model=8192, n_heads=64, n_kv_heads=8, d_ff=28_672).config(80, 128_256, SEQ_LEN)


def find(config: DecoderConfig, rows: int, ranks: int, per_machine: int = 8, memory: int = 80 * GB) -> Layout:
    return find_layout(config, rows, SEQ_LEN, Cluster(ranks, per_machine, memory), "full")


def test_what_fits_when_sharded_is_sharded() -> None:
    assert find(SMALL, rows=64, ranks=8) == Layout()
    assert find(LARGE, rows=256, ranks=64) == Layout()


def test_weights_stay_inside_a_machine_where_they_fit() -> None:
    assert find(SMALL, rows=64, ranks=32) == Layout(replicate=4)


def test_fewer_rows_than_ranks_are_shared_inside_a_machine() -> None:
    found = find(SMALL, rows=8, ranks=32)
    assert (found.tensor, found.context, found.pipeline) == (4, 1, 1)


def test_too_few_rows_for_a_machine_are_shared_by_positions() -> None:
    found = find(SMALL, rows=2, ranks=32)
    assert (found.tensor, found.context, found.pipeline) == (8, 2, 1)


def test_heads_that_cannot_be_split_leave_positions() -> None:
    odd = Llama(d_model=2048, n_heads=32, n_kv_heads=1, d_ff=8192).config(16, 32_000, SEQ_LEN)
    found = find(odd, rows=4, ranks=8)
    assert (found.tensor, found.context) == (1, 2)


def test_experts_are_spread_inside_a_machine() -> None:
    sparse = Qwen3MoE(d_model=1024, n_heads=16, n_experts=12).config(8, 32_000, SEQ_LEN)
    assert find(sparse, rows=64, ranks=16).expert == 4


@pytest.mark.parametrize("ranks", [8, 64, 512])
@pytest.mark.parametrize("rows", [4, 96, 512])
def test_what_is_found_can_be_used_and_fits(rows: int, ranks: int) -> None:
    found = find(LARGE, rows, ranks, memory=200 * GB)
    check_layout(found, ranks)
    readers = ranks // (found.tensor * found.context * found.pipeline)
    assert rows % readers == 0
    fitting = tokens_that_fit(LARGE, "full", 200 * GB, memory_parts(found, ranks))
    assert fitting >= SEQ_LEN // found.context


def test_what_fits_nowhere_is_said() -> None:
    with pytest.raises(GroundupError, match="no layout lets 2 ranks with 80 GB each"):
        find(LARGE, rows=8, ranks=2, per_machine=2)


def test_two_ranks_find_the_one_that_they_are_told_of(tmp_path: Path) -> None:
    """Two rows for two ranks that would read three each: tensor parallel is what is left."""
    given, case = inputs(tmp_path / "inputs"), {"run": recipe(3)}
    case["run"] = case["run"].model_copy(update={"batch_tokens": 3 * 32})
    for name, layout in (("told", Layout(tensor=2)), ("found", "auto")):
        runtime = SITE.model_copy(update={"layout": layout, "checkpoint_seconds": 1e6})
        launch(pretrainings, (case, runtime, tmp_path / name, given), 2, 60.0)
    assert curve(tmp_path / "found", "run") == curve(tmp_path / "told", "run")
