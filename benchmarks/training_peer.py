"""transformers' Trainer on LlamaForCausalLM, one turn at a time; runs in a separate environment.

in:  default or compiled; rows of token ids; config.json as text
out: its facts and number of steps, on the pipe of `turns.py`

    peer/bin/python benchmarks/training_peer.py default ROWS.npy CONFIG

Every setting is the Trainer's default, but: `compiled` sets torch_compile and bf16; nothing is reported to a service.
"""

import json
import sys
import tempfile

import numpy as np
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    __version__,
)
from turns import Turns


class TakeTurns(TrainerCallback):
    """Callback that waits after a step while another contender has its turn."""

    def __init__(self, turns):
        self.turns = turns

    def on_step_end(self, args, state, control, **kwargs):
        self.turns.after_step()


def main(kind: str, rows: str, config: str) -> None:
    """Train indefinitely."""
    ids = torch.from_numpy(np.load(rows)[:, :-1])
    data = [{"input_ids": row, "labels": row} for row in ids]
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**json.loads(config)))
    fast = {"torch_compile": True, "bf16": True} if kind == "compiled" else {}
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(folder, max_steps=10**6, report_to="none", use_cpu=True, **fast)
        with torch.no_grad():
            first_loss = float(model(input_ids=ids[:8], labels=ids[:8]).loss)
        turns = Turns(
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            first_loss=first_loss,
            version=f"transformers {__version__}, torch {torch.__version__}, "
            f"{arguments.per_device_train_batch_size} rows, {arguments.optim}, {model.config._attn_implementation}",
        )
        Trainer(model=model, args=arguments, train_dataset=data, callbacks=[TakeTurns(turns)]).train()


if __name__ == "__main__":
    main(*sys.argv[1:])
