"""Fine-tuning with LoRA through the whole method: it learns, and leaves plain weights."""

import json
from pathlib import Path

import torch
from align_helpers import method_context
from safetensors.torch import load_file

from groundup.align.align import train_with
from groundup.align.methods.sft import Sft
from groundup.evaluate.tasks import Example
from groundup.tokens.tokenizer import Tokenizer
from groundup.train.optimizers.adamw import AdamW

RECIPE = Sft(epochs=4, batch_rows=8, optimizer=AdamW(lr=0.01), precision="fp32", lora_rank=8)


def test_it_learns_and_leaves_plain_weights(
    start: Path, examples: list[Example], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    metrics = train_with(RECIPE, method_context(tmp_path, examples, tokenizer, start=start))
    assert metrics["val_loss"] < 0.96 * metrics["val_loss_before"]
    before, after = load_file(start / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.endswith("_proj.weight")}
    first, last = (json.loads(line) for line in _ends(tmp_path / "metrics.jsonl"))
    assert last["loss"] < first["loss"]


def _ends(path: Path) -> tuple[str, str]:
    lines = path.read_text().splitlines()
    return lines[0], lines[-1]
