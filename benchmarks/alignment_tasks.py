"""What the alignment methods change on a task whose right answers are known: sums of two-digit numbers.

    python benchmarks/alignment_tasks.py OUT [--methods grpo,dpo] [--seeds 0,1,2]

The initial policy is fine-tuned on answers of which half are wrong, so that it samples right answers about half of the
time. Each method then trains on prompts, and the share of right samples at temperature 1 is measured on other prompts,
before and after. DPO learns from rankings: the right and the wrong samples of the initial policy. Writes
OUT/results.json.
"""

import argparse
import json
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from groundup.align.align import train_with
from groundup.align.methods import Method, MethodContext
from groundup.align.methods.dpo import Dpo
from groundup.align.methods.grpo import Grpo
from groundup.align.methods.sft import Sft
from groundup.core.progress import Reporter
from groundup.core.records import Conversation, Message, Prompt, Ranking, Record
from groundup.core.runtime import Runtime
from groundup.core.stage import StageContext
from groundup.evaluate.alignment_data import AlignmentData
from groundup.evaluate.score import chat_engine
from groundup.evaluate.statistics import paired_difference
from groundup.evaluate.verifiers.exact import Exact
from groundup.model.checkpoint import load_decoder, save_model
from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder
from groundup.tokens import bpe
from groundup.tokens.chat import prompt as prompt_ids
from groundup.tokens.tokenizer import Tokenizer
from groundup.train.optimizers.adamw import AdamW

HELD_OUT, TRAIN, CONTEXT, LONGEST = 512, 6000, 32, 5
FALSE_SHARE, SAMPLES = 0.5, 8
RUNTIME = Runtime(device="cpu", threads=1, compile="off", checkpoint_seconds=86_400.0)


def question(a: int, b: int) -> tuple[Message, ...]:
    return (Message("user", f"{a}+{b}="),)


def tasks() -> list[Prompt]:
    """Sums in a fixed order; the first ones are held out."""
    pairs = [(a, b) for a in range(100) for b in range(100)]
    random.Random(1234).shuffle(pairs)
    return [
        Prompt(id=f"{a}+{b}", group=f"{a}+{b}", messages=question(a, b), answer=str(a + b),
               split="held_out" if at < HELD_OUT else "train")
        for at, (a, b) in enumerate(pairs[: HELD_OUT + TRAIN])
    ]  # fmt: skip


def fine_tuning_records(prompts: Sequence[Prompt]) -> list[Record]:
    """Conversations, of whose answers a fixed share is wrong by 1, 2, 10 or 11."""
    noise, records = random.Random(7), []
    for prompt in prompts:
        for copy in range(4):
            answer = str(prompt.answer)
            if noise.random() < FALSE_SHARE:
                answer = str(abs(int(answer) + noise.choice([-11, -10, -2, -1, 1, 2, 10, 11])))
            messages = (*prompt.messages, Message("assistant", answer))
            records.append(Conversation(id=f"{prompt.id}-{copy}", group=prompt.group, messages=messages,
                                        split=prompt.split))  # fmt: skip
    return records


class Lab:
    """Folders, the tokenizer of single bytes, and measurements."""

    def __init__(self, out: Path) -> None:
        self.out, self.prompts = out, tasks()
        self.tokenizer = Tokenizer.from_merges(bpe.train(iter(["7"]), 300))
        self.held_out = [prompt for prompt in self.prompts if prompt.split == "held_out"]

    def run(
        self, method: Method, records: Sequence[Record], name: str, **inputs: Path
    ) -> tuple[Path, dict[str, Any]]:
        """Train into OUT/name, unless that is there."""
        folder, began = self.out / name, time.perf_counter()
        folder.mkdir(parents=True, exist_ok=True)
        stage = StageContext(folder, Reporter(quiet=True))
        metrics = train_with(
            method, MethodContext(RUNTIME, stage, self.tokenizer, AlignmentData(records), inputs)
        )
        stage.close_log()
        return folder, metrics | {"seconds": time.perf_counter() - began}

    def initial(self) -> Path:
        """The fine-tuned initial policy, kept in OUT."""
        base, done = self.out / "base", self.out / "start" / "model.safetensors"
        if done.exists():
            return done.parent
        base.mkdir(parents=True, exist_ok=True)
        model = Decoder(DecoderConfig(self.tokenizer.vocab_size, 128, 4, 4, 4, 32, 384, max_seq_len=CONTEXT))
        model.init_weights(0)
        save_model(base, model, self.tokenizer)
        method = Sft(
            optimizer=AdamW(lr=2e-3), batch_rows=96, epochs=4, max_tokens=4_000_000, precision="fp32"
        )
        folder, _ = self.run(method, fine_tuning_records(self.prompts), "start", start=base)
        return folder

    def samples(self, folder: Path, prompts: Sequence[Prompt], count: int, seed: int) -> list[list[str]]:
        """`count` responses to each prompt at temperature 1; an unended one is empty."""
        policy = load_decoder(folder, torch.device("cpu"), torch.float32)
        engine = chat_engine(policy, self.tokenizer)
        engine.max_batch = 256
        ids = [prompt_ids(prompt.messages, self.tokenizer) for prompt in prompts for _ in range(count)]
        completions = engine.generate(ids, LONGEST, 1.0, seed=seed)
        texts = [self.tokenizer.decode(one.content) if one.finish == "stop" else "" for one in completions]
        return [texts[at : at + count] for at in range(0, len(texts), count)]

    def right(self, folder: Path) -> list[float]:
        """For each held-out prompt whether its sample is right, with the same random numbers for every policy."""
        answers = self.samples(folder, self.held_out, 1, seed=77)
        return [
            float(texts[0] == prompt.answer) for texts, prompt in zip(answers, self.held_out, strict=True)
        ]

    def rankings(self, start: Path, seed: int) -> list[Record]:
        """A right above a wrong sample of the initial policy, for the prompts with both."""
        train = [prompt for prompt in self.prompts if prompt.split == "train"][:3000]
        records: list[Record] = []
        for prompt, texts in zip(train + self.held_out, self.samples(start, train + self.held_out, SAMPLES, seed),
                                 strict=True):  # fmt: skip
            wrong = [text for text in texts if text and text != prompt.answer]
            if wrong and prompt.answer in texts:
                responses = tuple((Message("assistant", text),) for text in (str(prompt.answer), wrong[0]))
                records.append(Ranking(id=prompt.id, group=prompt.group, split=prompt.split, prompt=prompt.messages,
                                       responses=responses, ranks=(1, 2)))  # fmt: skip
        return records


def grpo(lab: Lab, start: Path, seed: int) -> tuple[Path, dict[str, Any]]:
    method = Grpo(optimizer=AdamW(lr=5e-4, weight_decay=0.0), verifier=Exact(), iterations=60, prompts=48, group_size=8,
                  minibatches=2, max_new_tokens=LONGEST, held_out=64, precision="fp32", seed=seed)  # fmt: skip
    return lab.run(method, lab.prompts, f"grpo-{seed}", start=start)


def dpo(lab: Lab, start: Path, seed: int) -> tuple[Path, dict[str, Any]]:
    method = Dpo(optimizer=AdamW(lr=3e-4, weight_decay=0.0), batch_rows=96, epochs=3, max_tokens=4_000_000,
                 precision="fp32", seed=seed)  # fmt: skip
    return lab.run(method, lab.rankings(start, 5 + seed), f"dpo-{seed}", start=start)


METHODS: dict[str, Callable[[Lab, Path, int], tuple[Path, dict[str, Any]]]] = {"grpo": grpo, "dpo": dpo}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--methods", default="grpo,dpo")
    parser.add_argument("--seeds", default="0,1,2")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lab = Lab(arguments.out)
    start = lab.initial()
    before = lab.right(start)
    results = []
    for name in arguments.methods.split(","):
        for seed in map(int, arguments.seeds.split(",")):
            folder, metrics = METHODS[name](lab, start, seed)
            after = lab.right(folder)
            gain = paired_difference(after, before)
            results.append({"method": name, "seed": seed, "before": sum(before) / len(before),
                            "after": sum(after) / len(after), "gain_interval": gain.bounds,
                            "prompts": len(before), "seconds": round(metrics["seconds"], 1),
                            "metrics": metrics})  # fmt: skip
            shown = {key: value for key, value in results[-1].items() if key != "metrics"}
            print(json.dumps(shown), flush=True)
    (arguments.out / "results.json").write_text(json.dumps(results, indent=1, default=str))


if __name__ == "__main__":
    main()
