"""Costs of a step found without ranks, against those of ranks that are there."""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

import costs_helpers
from costs_helpers import BUILD, CONFIG, SETTING, large
from groundup import presets
from groundup.core.blueprint import load
from groundup.core.errors import GroundupError
from groundup.core.runtime import Layout
from groundup.model.attention import FUSED
from groundup.model.config import MoE
from groundup.model.flops import parameters, training_flops_per_token
from groundup.parallel import shard
from groundup.parallel.launcher import launch
from groundup.parallel.simulate import StepSetting, estimate, simulate
from groundup.pipeline import Blueprint
from groundup.train.optimizers.muon import Muon

TIMEOUT = 60.0
H100 = 80e9
CHAIN = {"layout": Layout(pipeline=2, schedule="interleaved"), "rows": 2, "micro_batches": 4}


@pytest.fixture(autouse=True)
def layer_by_layer() -> Iterator[None]:
    with large():
        yield


@pytest.mark.parametrize(
    ("ranks", "cases"),
    [
        (1, [{"activation_checkpointing": "full"}]),
        (2, [{"precision": "fp32"}, {"micro_batches": 2}, {"layout": Layout(tensor=2)}, CHAIN]),
        pytest.param(4, [{"layout": Layout(tensor=2)}], marks=pytest.mark.cluster),
    ],
)
def test_memory_is_that_of_ranks_that_are_there(ranks: int, cases: list[dict[str, Any]]) -> None:
    """Measured is what the C++ allocator tells the profiler of true tensors in true processes (`costs_helpers.held`).

    The simulation knows nothing of either: it adds up sizes of tensors that were never allocated.
    """
    settings = [replace(SETTING, ranks=ranks, **case) for case in cases]
    measure = costs_helpers.held
    measured = launch(measure, (settings,), ranks, TIMEOUT) if ranks > 1 else measure(settings)
    for setting, (peak, between) in zip(settings, measured, strict=True):
        costs = simulate(setting, BUILD)
        assert costs.peak.total == pytest.approx(peak, rel=0.03), setting
        assert costs.steady.weights + costs.steady.optimizer == pytest.approx(between, rel=0.03), setting
        assert costs.steady.gradients == 0
        assert costs.steady.optimizer == pytest.approx(2 * costs.steady.weights, rel=0.01)


def test_thousands_of_ranks_take_seconds() -> None:
    began = time.process_time()
    layout = Layout(replicate=4, tensor=8, context=2)
    config = replace(
        CONFIG, d_model=2048, n_heads=16, n_kv_heads=8, head_dim=128, d_ff=8192, max_seq_len=4096
    )
    costs = simulate(StepSetting(config, 4096, ranks=4096, layout=layout), BUILD)
    assert time.process_time() - began < 60
    assert costs.steady.weights == pytest.approx(4 * parameters(config) / (4096 / 4), rel=0.05)
    assert {axis for axis, _ in costs.sent} == {"replicate", "shard", "tensor", "context"}


def test_arithmetic_is_that_of_the_books() -> None:
    costs = simulate(replace(SETTING, attention=FUSED), BUILD)
    tokens = SETTING.rows * SETTING.seq_len
    # With a mask all pairs are computed, and the backward pass of attention makes its scores anew: 7 products, not 3.
    attention = 12 * CONFIG.n_layers * SETTING.seq_len * CONFIG.n_heads * CONFIG.head_dim
    expected = training_flops_per_token(CONFIG, SETTING.seq_len) - attention / 2 + attention * 7 / 6
    assert costs.flops == pytest.approx(tokens * expected, rel=0.001)


def test_recomputing_holds_less_and_computes_more() -> None:
    none, selective, full = (
        simulate(replace(SETTING, activation_checkpointing=how), BUILD)
        for how in ("none", "selective", "full")
    )
    assert none.peak.rest > selective.peak.rest > full.peak.rest
    assert none.flops == selective.flops < full.flops


def test_a_small_decoder_is_gathered_once_in_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    two = replace(SETTING, ranks=2)
    layers = parameters(CONFIG) - 2 * CONFIG.vocab_size * CONFIG.d_model - CONFIG.d_model
    by_layer = simulate(two, BUILD).sent
    monkeypatch.setattr(shard, "SINGLE_UNIT_BYTES", 2 * parameters(CONFIG))
    at_once = simulate(two, BUILD).sent
    assert (
        by_layer["shard", "all_gather"] - at_once["shard", "all_gather"] == layers
    )  # in bf16 the other half of each
    assert by_layer["shard", "reduce_scatter"] == at_once["shard", "reduce_scatter"]


def test_deep_decoders_are_estimated_from_shallow_ones() -> None:
    deep = replace(
        SETTING,
        config=replace(CONFIG, n_layers=14, windows=(32, 0) * 7),
        ranks=2,
        activation_checkpointing="full",
    )
    exact, quick = simulate(deep, BUILD), estimate(deep, BUILD)
    assert quick.peak.total == pytest.approx(exact.peak.total, rel=0.01)
    assert (quick.steady, quick.sent, quick.flops) == (exact.steady, exact.sent, exact.flops)


def test_experts_exchange_their_rows_evenly() -> None:
    config = replace(CONFIG, moe=MoE(8, 2, 64))
    setting = replace(SETTING, config=config, ranks=8, layout=Layout(expert=4), precision="fp32")
    costs = simulate(setting, BUILD)
    rows = SETTING.rows * SETTING.seq_len * 2
    there_and_back = 4 * config.n_layers * rows * config.d_model * 4  # forward and backward
    told = config.n_layers * 8 * 8  # counts for 8 experts
    assert costs.sent["expert", "all_to_all"] == (there_and_back + told) * 3 // 4


def test_a_pipelines_first_rank_holds_most_and_zero_bubbles_hold_no_less() -> None:
    chain = replace(SETTING, ranks=4, rows=1, micro_batches=8, layout=Layout(pipeline=4))
    costs = [simulate(replace(chain, stage=stage), BUILD) for stage in range(4)]
    assert costs[0].peak.rest > costs[1].peak.rest > costs[2].peak.rest
    stream = SETTING.seq_len * CONFIG.d_model * 2
    assert [cost.sent["pipeline", "send"] for cost in costs] == [
        8 * stream,
        16 * stream,
        16 * stream,
        8 * stream,
    ]
    two = replace(chain, ranks=2, layout=Layout(pipeline=2, schedule="interleaved"))
    later = replace(two, layout=Layout(pipeline=2, schedule="zero_bubble"))
    assert simulate(later, BUILD).peak.total >= 0.9 * simulate(two, BUILD).peak.total


def test_muon_keeps_one_number_where_adamw_keeps_two_and_sends_no_more_than_it_holds() -> None:
    adamw, muon = (
        simulate(replace(SETTING, ranks=4), build) for build in (BUILD, Muon(lr=0.01, adam_lr=0.01).build)
    )
    assert muon.steady.optimizer < 0.75 * adamw.steady.optimizer
    hidden = parameters(CONFIG) - 2 * CONFIG.vocab_size * CONFIG.d_model
    there_and_back = (
        2 * 4 * hidden / 4 * 3 / 4
    )  # fp32 on this CPU or bf16, of a rank's quarter three quarters
    assert 0 < muon.sent["shard", "all_to_all"] <= 1.05 * there_and_back
    assert muon.sent["shard", "all_gather"] == pytest.approx(adamw.sent["shard", "all_gather"], rel=0.02)


def test_a_layout_that_does_not_fit_is_refused_as_in_training() -> None:
    with pytest.raises(GroundupError, match="does not divide the number of ranks, 6"):
        simulate(replace(SETTING, ranks=6, layout=Layout(tensor=4)), BUILD)
    with pytest.raises(GroundupError, match="does not divide n_kv_heads"):
        simulate(replace(SETTING, ranks=8, layout=Layout(tensor=4)), BUILD)
    with pytest.raises(GroundupError, match=r"8 pipeline stages .* need at least as many layers"):
        simulate(replace(SETTING, ranks=8, layout=Layout(pipeline=8)), BUILD)
    with pytest.raises(GroundupError, match="with value_embeddings every layer reads the embedding"):
        looking_back = replace(CONFIG, value_embeddings=True)
        simulate(replace(SETTING, config=looking_back, ranks=2, layout=Layout(pipeline=2)), BUILD)
    halves = Layout(pipeline=2, schedule="zero_bubble")
    with pytest.raises(GroundupError, match='Set activation_checkpointing to "full" or "none"'):
        simulate(replace(SETTING, ranks=2, layout=halves, activation_checkpointing="selective"), BUILD)
    simulate(SETTING, BUILD)  # and nothing of them is left


@pytest.mark.parametrize(
    ("name", "ranks", "size"), [("llama-8b", 8, 8_030_261_248), ("llama-70b", 256, 70_553_706_496)]
)
def test_the_large_presets_fit_their_gpus(name: str, ranks: int, size: int) -> None:
    """On the cluster that the preset names; the sizes are those of the published checkpoints."""
    plan = load(Blueprint, presets.table(name), [], name)
    recipe, runtime, seq_len = plan.pretrain.resolved(), plan.runtime, plan.tokenize.seq_len
    config = recipe.architecture.config(recipe.depth, plan.tokenizer.vocab_size, seq_len)
    readers = ranks // runtime.layout.tensor
    assert recipe.batch_tokens == seq_len * runtime.micro_batch * readers  # one micro-batch for each
    setting = StepSetting(
        config,
        seq_len,
        ranks,
        runtime.layout,
        runtime.micro_batch,
        activation_checkpointing=runtime.activation_checkpointing,
    )
    costs = estimate(setting, recipe.optimizer.build)
    assert costs.peak.total < 0.8 * H100
    assert parameters(config) == size
    assert costs.steady.weights == pytest.approx(4 * size / ranks, rel=0.02)
