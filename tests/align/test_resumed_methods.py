"""Stopped by SIGTERM in the middle and run again, a method ends in the bytes of an uninterrupted training."""

from pathlib import Path

import pytest
from align_helpers import SITE
from align_ranks import align_all

from groundup.align.methods import Method
from groundup.align.methods.dpo import Dpo
from groundup.align.methods.grpo import Grpo
from groundup.align.methods.kto import Kto
from groundup.evaluate.tasks import Example
from groundup.evaluate.verifiers.regex import Regex
from groundup.train.optimizers.adamw import AdamW

ADAM = AdamW(lr=1e-3)
METHODS: dict[str, tuple[Method, int]] = {
    "dpo": (Dpo(made=12, epochs=2, held_out=4, batch_rows=4, optimizer=ADAM, precision="fp32"), 3),
    "lora": (Dpo(made=12, epochs=2, held_out=4, batch_rows=4, lora_rank=2, optimizer=ADAM, precision="fp32"), 3),
    "kto": (Kto(made=8, held_out=4, batch_rows=4, optimizer=ADAM, precision="fp32"), 3),
    "grpo": (Grpo(iterations=3, prompts=3, group_size=3, max_new_tokens=8, held_out=4, verifier=Regex(pattern="e"),
                  optimizer=ADAM, precision="fp32"), 4),
}  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_a_resumed_training_ends_in_the_same_bytes(
    name: str, examples: list[Example], start: Path, tmp_path: Path
) -> None:
    method, stop_at = METHODS[name]
    cases = {name: (method, {"start": start})}
    align_all(cases, SITE, tmp_path / "whole", examples, start)
    with pytest.raises(SystemExit):
        align_all(cases, SITE, tmp_path / "stopped", examples, start, stop_at=stop_at)
    assert not (tmp_path / "stopped" / name / "model.safetensors").exists()
    align_all(cases, SITE, tmp_path / "stopped", examples, start)
    resumed, whole = (
        (tmp_path / folder / name / "model.safetensors").read_bytes() for folder in ("stopped", "whole")
    )
    assert resumed == whole
