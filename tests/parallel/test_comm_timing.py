"""What a step between ranks cost: bytes against a sum by hand, waiting against a rank that is slow on purpose."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import costs_helpers
from costs_helpers import BUILD, CONFIG, SETTING, large
from groundup.core.metrics import read_metrics
from groundup.core.runtime import Layout
from groundup.model.flops import parameters
from groundup.parallel.comm_timing import CommTiming
from groundup.parallel.context import SINGLE
from groundup.parallel.hardware import memory_held
from groundup.parallel.launcher import launch
from groundup.parallel.simulate import simulate
from groundup.train.loop import COMM_TIMING_EVERY
from ranks_helpers import pretrainings
from training_helpers import SITE, inputs, recipe

TIMEOUT = 60.0
PAIR = replace(SETTING, ranks=2)


@pytest.mark.parametrize("slow", [0, 1])
def test_bytes_are_those_of_fsdp_and_who_is_waited_for_is_named(slow: int) -> None:
    figures, sent = launch(costs_helpers.accounted, (PAIR, slow), 2, TIMEOUT)
    everything = parameters(CONFIG)
    outside = 2 * CONFIG.vocab_size * CONFIG.d_model + CONFIG.d_model  # embedding, head, last norm
    layers = everything - outside
    by_hand = {
        # Halves in bf16: a layer's for each pass, all else once.
        ("shard", "all_gather"): (2 * layers + outside) * 2 // 2,
        ("shard", "all_to_all"): everything * 4 // 2,
        # A square of norms in fp32, and the loss in fp64.
        ("shard", "all_reduce"): 4 + 8,
    }
    assert sent == by_hand
    with large():
        simulated = as_with_gloo(simulate(PAIR, BUILD).sent)
    assert simulated == by_hand | {("shard", "all_reduce"): 4}  # it has no loss to read

    assert figures["comm_bytes_shard"] == sum(by_hand.values())
    assert (
        figures["comm_seconds_shard"] > costs_helpers.DAWDLE / 2
    )  # mean of one that waits and one that doesn't
    assert figures["straggler"] == slow
    # One of two ranks waits for most of its step.
    assert 0.25 < figures["idle_share"] < 0.5
    assert 0 < figures["comm_share"] < 1 - figures["idle_share"]
    assert 0.05 < figures["memory_gb_per_rank"] < 10


def test_every_axis_carries_what_was_simulated() -> None:
    setting = replace(SETTING, ranks=4, layout=Layout(tensor=2, context=2))
    figures, sent = launch(costs_helpers.accounted, (setting, 2), 4, TIMEOUT)
    with large():
        simulated = as_with_gloo(simulate(setting, BUILD).sent)
    assert {axis for axis, _ in sent} == {"shard", "tensor", "context"}
    assert sent == simulated | {("shard", "all_reduce"): simulated["shard", "all_reduce"] + 8}  # the loss
    assert figures["straggler"] == 2


def test_a_rank_alone_sends_nothing_and_waits_for_nobody() -> None:
    stepper, _, batches, _ = costs_helpers.trainer(SETTING)
    with CommTiming(SINGLE, torch.device("cpu")) as costs:
        stepper.train_step(0, batches)
    assert dict(costs.sent) == {}
    assert costs.metrics() == {
        "memory_gb_per_rank": pytest.approx(memory_held(torch.device("cpu")) / 1e9, rel=0.1)
    }


def test_a_training_takes_account_every_so_often(tmp_path: Path) -> None:
    runtime = SITE.model_copy(
        update={"layout": Layout(pipeline=2), "micro_batch": 1, "checkpoint_seconds": 1e6}
    )
    case = {"run": recipe(COMM_TIMING_EVERY).model_copy(update={"depth": 2})}
    launch(pretrainings, (case, runtime, tmp_path / "two", inputs(tmp_path / "inputs")), 2, TIMEOUT)
    lines = read_metrics(tmp_path / "two" / "run.part" / "metrics.jsonl")
    *before, last = (line for line in lines if "loss" in line)
    assert last["straggler"] in (0, 1)
    assert 0 <= last["idle_share"] < 1
    assert last["comm_bytes_pipeline"] > 0
    assert not any("straggler" in line for line in before)
    assert all(0 < line["bubble_share"] < 1 for line in before)


def as_with_gloo(sent: dict[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    """Gradients are exchanged and added up on a CPU, and reduced on the way in what is simulated."""
    names = {("shard", "reduce_scatter"): ("shard", "all_to_all")}
    return {names.get(what, what): size for what, size in sent.items()}
