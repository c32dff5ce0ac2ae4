"""A stable checkpoint that several ranks leave is annealed by others as one long run would have been."""

from pathlib import Path

import pytest

from groundup.core.runtime import Layout
from groundup.model.architectures.qwen3 import Qwen3
from groundup.parallel.launcher import launch
from groundup.train.optimizers.muon import Muon
from ranks_helpers import curve, pretrainings
from training_helpers import SITE, inputs, recipe

RARELY = SITE.model_copy(update={"checkpoint_seconds": 1e6})
SHAPE = Qwen3(d_model=16, n_heads=2, tie_embeddings=True)
BY_RULE = {"architecture": SHAPE, "depth": 2, "optimizer": Muon()}
"""Rates of the first run's rules, not of the second's."""


def test_others_anneal_what_four_ranks_left(tmp_path: Path) -> None:
    given = inputs(tmp_path / "inputs")
    whole = recipe(20).model_copy(
        update={"schedule": "wsd", "decay_fraction": 0.4, "warmup_fraction": 0.1} | BY_RULE
    )
    sharded = RARELY.model_copy(update={"layout": Layout(pipeline=2)})
    launch(pretrainings, ({"whole": whole}, sharded, tmp_path / "4", given), 4, 60.0)
    stable = str(tmp_path / "4" / "whole.part" / "stable")
    change = {"start": stable, "schedule": "linear", "warmup_fraction": 0.0, "optimizer": Muon()}
    rest = recipe(8).model_copy(update=change)
    for ranks, layout in ((1, Layout()), (2, Layout(tensor=2))):
        runtime = RARELY.model_copy(update={"layout": layout})
        folder = tmp_path / str(ranks)
        if ranks == 1:
            pretrainings({"rest": rest}, runtime, folder, given)
        else:
            launch(pretrainings, ({"rest": rest}, runtime, folder, given), ranks, 60.0)
        for one, many in zip(curve(tmp_path / "4", "whole")[12:], curve(folder, "rest"), strict=True):
            assert many == pytest.approx(one, rel=1e-5), f"on {ranks} ranks"
