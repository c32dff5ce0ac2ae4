"""Checks of whole alignment methods: what their first step learns from, against the reference's forward passes.

in:  a bench
out: differences

Each method is prepared as a run prepares it, on a handful of conversations which are all in its first step.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from groundup.align.methods import MethodContext, Session, ppo, reward, sft
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
from groundup.doctor.toy_models import TALK, loud, tokenizer, weights_of
from groundup.evaluate.tasks import Example
from groundup.model import checkpoint
from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder
from groundup.model.value_head import ValueModel
from groundup.tokens.tokenizer import Tokenizer

TIME = 96
"""A row's tokens; a pair of answers to one question fits in."""


def _config(words: Tokenizer) -> DecoderConfig:
    return DecoderConfig(words.vocab_size, 32, 2, 2, 1, 16, 48, logit_softcap=3.0, max_seq_len=TIME)


def _start(bench: CheckContext, words: Tokenizer) -> tuple[Path, Decoder]:
    """A checkpoint of a model whose answers are short, for it likes to end a turn; and the model."""
    model = Decoder(_config(words))
    loud(model)
    folder = bench.folder / "start"
    folder.mkdir()
    checkpoint.save_model(folder, model, words)
    return folder, model


def _examples() -> list[Example]:
    return [
        Example(f"talk-{number}", "talk", "what", f"document-{number}", f"thing-{number}", question, answer)
        for number, (question, answer) in enumerate(TALK)
    ]


def _given(bench: CheckContext, words: Tokenizer, **reads: Path) -> MethodContext:
    work = StageContext(bench.folder / "work", Reporter(quiet=True))
    return MethodContext(runtime(bench), work, words, _examples(), _examples(), reads)


def _first_step(session: Session) -> tuple[float, Counter[str]]:
    """Loss and figures of the first step, summed over its micro-batches."""
    total, figures = 0.0, Counter[str]()
    for batch in session.batches(0) or []:
        value, said = session.loss(session.model, batch)
        total += value.item()
        figures.update({name: float(torch.as_tensor(part).detach()) for name, part in said.items()})
    return total, figures


def _check_sft(bench: CheckContext) -> Iterator[Difference]:
    """Mean -log p over the assistants' tokens of all conversations."""
    words = tokenizer()
    folder, model = _start(bench, words)
    session = sft.Sft(batch_rows=4, precision="fp32").prepare(_given(bench, words, start=folder))
    losses: list[Tensor] = []
    for question, answer in TALK:
        ids, learn = plain_chat([Message("user", question), Message("assistant", answer)], words)
        row = torch.tensor([ids])
        log_probs = formulas.log_softmax(plain_logits(model, row)[0, :-1])
        losses += [-log_probs[at - 1, ids[at]] for at in range(1, len(ids)) if learn[at]]
    loss = _first_step(session)[0]
    yield compare(
        "loss of the first step", torch.tensor(loss), torch.stack(losses).mean(), roundings(model.config)
    )


def _check_reward(bench: CheckContext) -> Iterator[Difference]:
    """Mean of -log sigmoid(better - worse - margin), and how often the better one wins."""
    words = tokenizer()
    folder, _ = _start(bench, words)
    recipe = reward.Reward(
        batch_rows=8, other=4, truncated=4, garbled=0, sampled=0, held_out=2, margin=0.4, precision="fp32"
    )
    session = recipe.prepare(_given(bench, words, start=folder))
    assert isinstance(session.model, ValueModel)
    loud(session.model, seed=2)
    right = {tuple(plain_chat(example.conversation().messages, words)[0]) for example in _examples()}
    losses, wins = [], []
    for batch in session.batches(0) or []:
        flat, segments = batch.packed.ids.flatten().tolist(), batch.packed.segments.flatten().tolist()
        texts = [
            [token for token, segment in zip(flat, segments, strict=True) if segment == number]
            for number in range(len(batch.packed.places))
        ]
        for pair in zip(texts[::2], texts[1::2], strict=True):
            better, worse = sorted(pair, key=lambda text: tuple(text) not in right)
            assert tuple(better) in right and tuple(worse) not in right, "a pair holds one right answer"
            scores = [_score(session.model, text)[None] for text in (better, worse)]
            losses.append(formulas.bradley_terry(scores[0], scores[1], 0.4))
            wins.append(float(scores[0] > scores[1]))
    loss, figures = _first_step(session)
    allowed = 2 * roundings(session.model.config)
    yield compare("loss of the first step", torch.tensor(loss), torch.cat(losses).mean(), allowed)
    share = torch.tensor(sum(wins) / len(wins))
    yield compare("accuracy of the first step", torch.tensor(figures["accuracy"]), share, allowed)


def _score(model: ValueModel, ids: list[int]) -> Tensor:
    """The reference's value at the last token."""
    plain = {name.removeprefix("decoder."): weight for name, weight in weights_of(model).items()}
    hidden = reference.hidden(plain, model.config, torch.tensor([ids]), [[0] * len(ids)])
    return (hidden @ plain["score.weight"][0])[0, -1].detach()


def _check_ppo(bench: CheckContext) -> Iterator[Difference]:
    """In its first step the policy still is the one that sampled: no ratio differs from 1, and no clip is active.

    Advantages have mean 0 over the phase, so the policy's loss is 0, and the critic's is half its error.
    """
    words = tokenizer()
    start, model = _start(bench, words)
    folder, critic = bench.folder / "reward", ValueModel(_config(words))
    loud(critic, seed=3)
    folder.mkdir()
    checkpoint.save_model(folder, critic, words)
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
    session = recipe.prepare(_given(bench, words, start=start, reward=folder))
    _, figures = _first_step(session)
    allowed = 8 * roundings(model.config)
    zero, one = torch.zeros(()), 1.0
    yield compare("policy's loss", torch.tensor(figures["policy_loss"]), zero, allowed, scale=one)
    yield compare("clipped share", torch.tensor(figures["clipped"]), zero, 0)
    yield compare("distance to the start", torch.tensor(figures["kl"]), zero, allowed, scale=one)
    half = torch.tensor(figures["value_error"] / 2)
    yield compare("critic's loss", torch.tensor(figures["value_loss"]), half, allowed)


CHECKS = [
    Check(
        "alignment: fine-tuning", "fine-tuning learns from other tokens, or with other weights", _check_sft
    ),
    Check("alignment: reward model", "a reward model learns to prefer the wrong answers", _check_reward),
    Check("alignment: PPO", "PPO compares a policy with another one than it sampled from", _check_ppo),
]
