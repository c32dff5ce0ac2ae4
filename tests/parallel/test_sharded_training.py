"""Pretraining on several ranks against one rank: the same losses, norms, weights and resumed runs."""

import shutil
from pathlib import Path

import pytest
import torch

from groundup.core.runtime import Layout
from groundup.model.architectures import Architecture
from groundup.model.architectures.llama import Llama
from groundup.model.architectures.olmo3 import Olmo3
from groundup.model.architectures.qwen3 import Qwen3
from groundup.model.architectures.qwen3_moe import Qwen3MoE
from groundup.model.checkpoint import load_decoder
from groundup.model.decoder import Decoder
from groundup.model.induction import held_blocks
from groundup.parallel.launcher import launch
from groundup.parallel.shard import SINGLE_UNIT_BYTES
from groundup.train.optimizers.adamw import AdamW
from groundup.train.optimizers.muon import Muon
from groundup.train.pretrain import Pretrain
from ranks_helpers import curve, pretrainings, weights
from training_helpers import SITE, Inputs, inputs, recipe

TIMEOUT = 60.0
STEPS, LEAVE = 10, 5
RARELY = SITE.model_copy(update={"checkpoint_seconds": 1e6})
"""Saves when it leaves only."""
SHAPES: dict[str, Architecture] = {
    "llama": Llama(d_model=16, n_heads=2),
    "qwen3": Qwen3(d_model=16, n_heads=2, tie_embeddings=True),
    "olmo3": Olmo3(d_model=16, n_heads=2),
    "moe": Qwen3MoE(d_model=16, n_heads=2),
}
HELD = "qwen3-held"
"""The case with an induction circuit."""


ADAM = "llama", "moe-adamw"
"""Cases with AdamW; the others train with Muon."""


def cases(depth: int = 2) -> dict[str, Pretrain]:
    """Odd sizes: rows of matrices don't divide by the ranks."""
    plain, adam = recipe(STEPS), AdamW(lr=0.01)
    shapes = {name: SHAPES[name.partition("-")[0]] for name in (*SHAPES, "moe-adamw", HELD)}
    changes = {name: {"architecture": shape, "depth": depth} for name, shape in shapes.items()}
    for name in ADAM:
        changes[name]["optimizer"] = adam
    changes[HELD] |= {
        "init": "induction",
        "architecture": Qwen3(d_model=32, n_heads=4, tie_embeddings=True),
        "optimizer": Muon(lr=0.002, adam_lr=0.004, weight_decay=1.0),
    }
    return {name: plain.model_copy(update=change) for name, change in changes.items()}


def tolerance(name: str) -> float:
    """Of losses and norms. The circuit's attention is sharp: other micro-batches change norms by 1e-4 on one rank."""
    return 5e-4 if name == HELD else 1e-5


def fits(name: str, ranks: int, layout: Layout) -> bool:
    """Two ranks train all there is; with more of them two shapes stand for the others."""
    if layout.expert > 1:
        return "moe" in name
    return ranks == 2 or name in ("qwen3", "moe-adamw")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Inputs]:
    """All cases on one rank, in a folder by their depth."""
    folder = tmp_path_factory.mktemp("alone")
    given = inputs(folder)
    for depth in (2, 4):
        pretrainings(cases(depth), RARELY, folder / str(depth), given)
    return folder, given


ON_TWO = [
    Layout(),
    Layout(tensor=2),
    Layout(context=2),
    Layout(expert=2),
    Layout(pipeline=2),
    Layout(pipeline=2, schedule="interleaved"),
    Layout(pipeline=2, schedule="zero_bubble"),
]
ON_MORE = [
    (4, Layout(replicate=2)),
    (4, Layout(tensor=2, context=2)),
    (4, Layout(tensor=2, expert=2)),
    (4, Layout(pipeline=2, context=2)),
    (4, Layout(pipeline=2, expert=2, schedule="zero_bubble")),
    (8, Layout(pipeline=2, tensor=2)),
]


@pytest.mark.parametrize(
    ("ranks", "layout"),
    [
        *((2, layout) for layout in ON_TWO),
        *(pytest.param(*case, marks=pytest.mark.cluster) for case in ON_MORE),
    ],
    ids=str,
)
def test_losses_and_norms_are_those_of_one_rank(
    alone: tuple[Path, Inputs], tmp_path: Path, ranks: int, layout: Layout
) -> None:
    reference, given = alone
    depth = 2 if layout.schedule == "1f1b" else 4
    runtime = RARELY.model_copy(update={"layout": layout, "micro_batch": 1 if layout.pipeline > 1 else 0})
    chosen = {name: case for name, case in cases(depth).items() if fits(name, ranks, layout)}
    launch(pretrainings, (chosen, runtime, tmp_path, given), ranks, TIMEOUT)
    for name in chosen:
        expected = curve(reference / str(depth), name)
        for step, (one, many) in enumerate(zip(expected, curve(tmp_path, name), strict=True)):
            assert many == pytest.approx(one, rel=tolerance(name)), f"{name}, step {step + 1}"
    if HELD in chosen:
        assert_circuit_unchanged(tmp_path / f"{HELD}.part")


def assert_circuit_unchanged(folder: Path) -> None:
    """The held blocks have their initial bits, and the rest of their parameters has changed."""
    trained = load_decoder(folder)
    initial = Decoder(trained.config)
    initial.init_weights(0)
    for (name, after), before in zip(trained.named_parameters(), initial.parameters(), strict=True):
        for block in held_blocks(trained.config, name):
            start, size = block.start, block.stop - block.start
            held = after.narrow(block.axis, start, size)
            assert torch.equal(held, before.narrow(block.axis, start, size)), name
            assert held.numel() == after.numel() or not torch.equal(after, before), name


@pytest.mark.parametrize("layout", [Layout(), Layout(expert=2)], ids=str)
def test_small_models_are_gathered_at_once(
    alone: tuple[Path, Inputs], tmp_path: Path, layout: Layout
) -> None:
    chosen = {name: case for name, case in cases().items() if fits(name, 2, layout)}
    runtime = RARELY.model_copy(update={"layout": layout})
    launch(pretrainings, (chosen, runtime, tmp_path, alone[1], 0, SINGLE_UNIT_BYTES), 2, TIMEOUT)
    for name in chosen:
        for one, many in zip(curve(alone[0] / "2", name), curve(tmp_path, name), strict=True):
            assert many == pytest.approx(one, rel=tolerance(name)), name


@pytest.mark.cluster
@pytest.mark.parametrize("layout", ON_TWO, ids=str)
def test_compiled_they_are_those_of_one_rank_that_is_not(
    alone: tuple[Path, Inputs], tmp_path: Path, layout: Layout
) -> None:
    depth = 2 if layout.schedule == "1f1b" else 4
    name = "moe" if layout.expert > 1 else "qwen3"
    runtime = RARELY.model_copy(update={"layout": layout, "compile": "auto"})
    launch(pretrainings, ({name: cases(depth)[name]}, runtime, tmp_path, alone[1]), 2, 5 * TIMEOUT)
    for one, many in zip(curve(alone[0] / str(depth), name), curve(tmp_path, name), strict=True):
        assert many == pytest.approx(one, rel=tolerance(name))


@pytest.mark.parametrize("layout", [Layout(), Layout(tensor=2), Layout(pipeline=2)], ids=str)
def test_in_bf16_they_are_those_of_one_rank_to_its_tolerance(
    alone: tuple[Path, Inputs], tmp_path: Path, layout: Layout
) -> None:
    """A step's loss and norm before any weight has moved; then losses alone: each rounding grows from step to step."""
    chosen = {name: cases()[name].model_copy(update={"precision": "bf16"}) for name in ("olmo3", "moe-adamw")}
    pretrainings(chosen, RARELY, tmp_path / "one", alone[1])
    run_on(2, layout, chosen, tmp_path / "two", alone[1])
    for name in chosen:
        one, two = curve(tmp_path / "one", name), curve(tmp_path / "two", name)
        assert two[0][0] == pytest.approx(one[0][0], rel=1e-4)
        assert two[0][1] == pytest.approx(one[0][1], rel=5e-3)
        assert [loss for loss, _ in two] == pytest.approx([loss for loss, _ in one], rel=2e-2)


OTHERS = [(1, Layout()), (2, Layout()), (8, Layout(tensor=2, pipeline=2))]


@pytest.mark.cluster
def test_a_state_of_four_ranks_is_continued_on_any_number(alone: tuple[Path, Inputs], tmp_path: Path) -> None:
    """FSDP x tensor saves; one, two (FSDP) and eight ranks (FSDP x tensor x pipeline) go on to the same losses."""
    chosen = {"qwen3": cases()["qwen3"]}
    for name, case in chosen.items():
        with pytest.raises(SystemExit):
            run_on(4, Layout(tensor=2), {name: case}, tmp_path / "4", alone[1], LEAVE)
    for ranks, layout in OTHERS:
        folder = tmp_path / f"on-{ranks}"
        shutil.copytree(tmp_path / "4", folder)
        run_on(ranks, layout, chosen, folder, alone[1])
        for name in chosen:
            for one, many in zip(curve(alone[0] / "2", name), curve(folder, name), strict=True):
                assert many == pytest.approx(one, rel=tolerance(name)), f"{name} on {ranks} ranks"


@pytest.mark.cluster
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_a_run_of_several_epochs_continues_on_another_number_of_ranks(
    alone: tuple[Path, Inputs], tmp_path: Path, before: int, after: int
) -> None:
    """It stops at an odd step; the next five have the losses and norms of the run that didn't stop."""
    leave, more = 67, 5
    longer = {"tokens": (leave + more) * recipe(1).batch_tokens}
    chosen = {name: cases()[name].model_copy(update=longer) for name in ("qwen3", "llama")}
    pretrainings(chosen, RARELY, tmp_path / "whole", alone[1])
    for name, case in chosen.items():
        with pytest.raises(SystemExit):
            run_on(before, Layout(), {name: case}, tmp_path / "stopped", alone[1], leave)
    run_on(after, Layout(), chosen, tmp_path / "stopped", alone[1])
    for name in chosen:
        whole, stopped = curve(tmp_path / "whole", name), curve(tmp_path / "stopped", name)
        assert len(whole) == len(stopped) == leave + more
        for one, other in zip(whole[leave:], stopped[leave:], strict=True):
            assert other == pytest.approx(one, rel=1e-5), name


@pytest.mark.cluster
def test_a_state_is_the_same_checkpoint_on_any_number_of_ranks(
    alone: tuple[Path, Inputs], tmp_path: Path
) -> None:
    """The last state of four ranks is loaded by others, which have nothing to do but to write what it is."""
    chosen = {"moe-adamw": cases()["moe-adamw"]}
    run_on(4, Layout(tensor=2), chosen, tmp_path / "4", alone[1])
    for ranks, layout in OTHERS:
        folder = tmp_path / f"on-{ranks}"
        shutil.copytree(tmp_path / "4", folder)
        for name in chosen:
            (folder / f"{name}.part" / "model.safetensors").unlink()
        run_on(ranks, layout, chosen, folder, alone[1])
        for name in chosen:
            assert weights(folder, name) == weights(tmp_path / "4", name), f"{name} on {ranks} ranks"


def run_on(
    ranks: int, layout: Layout, chosen: dict[str, Pretrain], folder: Path, given: Inputs, leave_at: int = 0
) -> None:
    """Train on so many ranks; one of them is this process."""
    runtime = RARELY.model_copy(update={"layout": layout})
    if ranks == 1:
        pretrainings(chosen, runtime, folder, given, leave_at)
    else:
        launch(pretrainings, (chosen, runtime, folder, given, leave_at), ranks, TIMEOUT)


def test_a_resumed_run_ends_in_the_same_bits_on_the_same_ranks(
    alone: tuple[Path, Inputs], tmp_path: Path
) -> None:
    case = {"qwen3": cases()["qwen3"]}
    whole, given = tmp_path / "whole", alone[1]
    launch(pretrainings, (case, SITE, whole, given), 2, TIMEOUT)
    with pytest.raises(SystemExit):
        launch(pretrainings, (case, SITE, tmp_path / "resumed", given, LEAVE), 2, TIMEOUT)
    launch(pretrainings, (case, SITE, tmp_path / "resumed", given), 2, TIMEOUT)
    assert weights(whole, "qwen3") == weights(tmp_path / "resumed", "qwen3")


@pytest.mark.parametrize("harm", ["a byte", "a file"])
def test_a_harmed_shard_is_named_and_the_state_before_is_taken(
    alone: tuple[Path, Inputs], tmp_path: Path, harm: str
) -> None:
    case, given = {"olmo3": cases()["olmo3"]}, alone[1]
    with pytest.raises(SystemExit):
        launch(pretrainings, (case, SITE, tmp_path, given, LEAVE), 2, TIMEOUT)
    states = sorted((tmp_path / "olmo3.part" / "resume").glob("step-*"))
    shard = sorted(states[-1].glob("*.safetensors"))[1]
    if harm == "a file":
        shard.unlink()
    else:
        data = bytearray(shard.read_bytes())
        data[len(data) // 2] ^= 1
        shard.write_bytes(data)
    said = "".join(launch(pretrainings, (case, SITE, tmp_path, given), 2, TIMEOUT)["olmo3"]["messages"])
    assert f"{states[-1].name} is damaged ({shard.name}" in said
    assert f"continuing pretrain at step {int(states[-2].name[5:])}" in said
    for one, many in zip(curve(alone[0] / "2", "olmo3"), curve(tmp_path, "olmo3"), strict=True):
        assert many == pytest.approx(one, rel=tolerance("olmo3"))
