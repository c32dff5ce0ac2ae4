"""Checks of the alignment methods: the loss of the first step against the reference's forward passes.

in:  a `CheckContext`
out: differences

Each method is prepared as in a run, on a few conversations that are all in its first step.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from groundup.align.data.datasets.generated import to_records
from groundup.align.methods import MethodContext, ppo, reward, sft
from groundup.align.rollouts import REWARD_FILE
from groundup.core.atomic_io import write_json
from groundup.core.progress import Reporter
from groundup.core.records import Message
from groundup.core.stage import StageContext
from groundup.doctor import formulas, reference
from groundup.doctor.check import Check, CheckContext, Difference, compare
from groundup.doctor.checks_data import plain_chat
from groundup.doctor.checks_model import plain_logits, roundings
from groundup.doctor.checks_training import runtime
from groundup.doctor.toy_models import CHATS, set_distinct_weights, toy_tokenizer, weights_of
from groundup.evaluate.alignment_data import AlignmentData
from groundup.evaluate.tasks import Example
from groundup.model import checkpoint
from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder
from groundup.model.value_head import ValueModel
from groundup.tokens.tokenizer import Tokenizer

PreparedSession = sft.SftSession | reward.RewardSession | ppo.PpoSession
TIME = 96
"""Tokens per packed sequence; a pair of answers to one question fits."""


def _config(tokenizer: Tokenizer) -> DecoderConfig:
    return DecoderConfig(tokenizer.vocab_size, 32, 2, 2, 1, 16, 48, logit_softcap=3.0, max_seq_len=TIME)


def _start(context: CheckContext, tokenizer: Tokenizer) -> tuple[Path, Decoder]:
    """A checkpoint of a model with short answers (end-of-turn is likely), and the model."""
    model = Decoder(_config(tokenizer))
    set_distinct_weights(model)
    folder = context.folder / "start"
    folder.mkdir()
    checkpoint.save_model(folder, model, tokenizer)
    return folder, model


def _data() -> AlignmentData:
    """Every chat, both to train on and held out."""
    records = [
        record
        for number, (question, answer) in enumerate(CHATS)
        for record in to_records(
            Example(f"talk-{number}", "what", f"document-{number}", f"thing-{number}", question, answer), ""
        )
    ]
    return AlignmentData([*records, *(replace(record, split="held_out") for record in records)])


def _given(context: CheckContext, tokenizer: Tokenizer, **reads: Path) -> MethodContext:
    work = StageContext(context.folder / "work", Reporter(quiet=True))
    return MethodContext(runtime(context), work, tokenizer, _data(), reads)


def _first_step(session: PreparedSession) -> tuple[float, Counter[str]]:
    """Loss and metrics of the first step, summed over its micro-batches."""
    model, total, metrics = session.trained.whole(), 0.0, Counter[str]()
    for batch in session.batches(0) or []:
        value, step_metrics = session.loss(model, batch)  # type: ignore[arg-type]
        total += value.item()
        metrics.update({name: float(torch.as_tensor(part).detach()) for name, part in step_metrics.items()})
    return total, metrics


def _check_sft(context: CheckContext) -> Iterator[Difference]:
    """Mean -log p over the assistant's tokens of all conversations."""
    tokenizer = toy_tokenizer()
    folder, model = _start(context, tokenizer)
    session = sft.SftSession(
        sft.Sft(batch_rows=4, precision="fp32"), _given(context, tokenizer, start=folder)
    )
    losses: list[Tensor] = []
    for question, answer in CHATS:
        ids, learn = plain_chat([Message("user", question), Message("assistant", answer)], tokenizer)
        row = torch.tensor([ids])
        log_probs = formulas.log_softmax(plain_logits(model, row)[0, :-1])
        losses += [-log_probs[at - 1, ids[at]] for at in range(1, len(ids)) if learn[at]]
    loss = _first_step(session)[0]
    yield compare(
        "loss of the first step", torch.tensor(loss), torch.stack(losses).mean(), roundings(model.config)
    )


def _check_reward(context: CheckContext) -> Iterator[Difference]:
    """Mean of -log sigmoid(chosen - rejected - margin), and the accuracy."""
    tokenizer = toy_tokenizer()
    folder, _ = _start(context, tokenizer)
    recipe = reward.Reward(
        batch_rows=8, other=4, truncated=4, garbled=0, sampled=0, held_out=2, margin=0.4, precision="fp32"
    )
    session = reward.RewardSession(recipe, _given(context, tokenizer, start=folder))
    model: ValueModel = session.trained.whole()
    set_distinct_weights(model, seed=2)
    right = {tuple(plain_chat(talk.messages, tokenizer)[0]) for talk in _data().conversations("train")}
    losses, wins = [], []
    for batch in session.batches(0) or []:
        flat, segments = batch.packed.ids.flatten().tolist(), batch.packed.segments.flatten().tolist()
        random_ids = [
            [token for token, segment in zip(flat, segments, strict=True) if segment == number]
            for number in range(len(batch.packed.spans))
        ]
        for pair in zip(random_ids[::2], random_ids[1::2], strict=True):
            better, worse = sorted(pair, key=lambda text: tuple(text) not in right)
            assert tuple(better) in right and tuple(worse) not in right, "a pair has one right answer"
            scores = [_score(model, text)[None] for text in (better, worse)]
            losses.append(formulas.bradley_terry(scores[0], scores[1], 0.4))
            wins.append(float(scores[0] > scores[1]))
    loss, metrics = _first_step(session)
    allowed = 2 * roundings(model.config)
    yield compare("loss of the first step", torch.tensor(loss), torch.cat(losses).mean(), allowed)
    share = torch.tensor(sum(wins) / len(wins))
    yield compare("accuracy of the first step", torch.tensor(metrics["accuracy"]), share, allowed)


def _score(model: ValueModel, ids: list[int]) -> Tensor:
    """The reference's score at the last token."""
    plain = {name.removeprefix("decoder."): weight for name, weight in weights_of(model).items()}
    hidden = reference.hidden(plain, model.config, torch.tensor([ids]), [[0] * len(ids)])
    return (hidden @ plain["score.weight"][0])[0, -1].detach()


def _check_ppo(context: CheckContext) -> Iterator[Difference]:
    """In the first step the policy is the one that sampled: all ratios are 1 and no clip is active.

    Advantages have mean 0 over the iteration, so the policy loss is 0 and the value loss is half the squared error.
    """
    tokenizer = toy_tokenizer()
    start, model = _start(context, tokenizer)
    folder, critic = context.folder / "reward", ValueModel(_config(tokenizer))
    set_distinct_weights(critic, seed=3)
    folder.mkdir()
    checkpoint.save_model(folder, critic, tokenizer)
    write_json(folder / REWARD_FILE, {"mean": 0.3, "std": 2.0})
    recipe = ppo.Ppo(
        iterations=1,
        rollout_batch_size=4,
        minibatches=1,
        epochs=1,
        max_new_tokens=12,
        temperature=0.7,
        held_out=2,
        precision="fp32",
    )
    session = ppo.PpoSession(recipe, _given(context, tokenizer, start=start, reward=folder))
    _, metrics = _first_step(session)
    allowed = 8 * roundings(model.config)
    zero, one = torch.zeros(()), 1.0
    yield compare("policy loss", torch.tensor(metrics["policy_loss"]), zero, allowed, scale=one)
    yield compare("clip fraction", torch.tensor(metrics["clipped"]), zero, 0)
    yield compare("KL to the reference policy", torch.tensor(metrics["kl"]), zero, allowed, scale=one)
    half = torch.tensor(metrics["value_error"] / 2)
    yield compare("value loss", torch.tensor(metrics["value_loss"]), half, allowed)


CHECKS = [
    Check("alignment: fine-tuning", "fine-tuning trains on wrong tokens or with wrong weights", _check_sft),
    Check("alignment: reward model", "a reward model is trained to prefer wrong answers", _check_reward),
    Check("alignment: PPO", "PPO's ratios aren't relative to the policy that sampled", _check_ppo),
]
