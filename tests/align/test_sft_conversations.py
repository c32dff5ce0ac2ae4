"""Fine-tuning on conversations of several turns: what is in the loss, what is cut, and NEFTune's noise."""

from pathlib import Path
from typing import Any

import pytest
import torch
from align_helpers import SITE, TIME

from groundup.align.methods import MethodContext
from groundup.align.methods.sft import Sft, SftSession
from groundup.align.neftune import embedding_noise
from groundup.core.progress import Reporter
from groundup.core.records import Conversation, Message
from groundup.core.stage import StageContext
from groundup.evaluate.alignment_data import AlignmentData
from groundup.tokens.tokenizer import Tokenizer


def talk(number: int, *answers: str, first_in_loss: bool = True) -> list[Conversation]:
    """A conversation of several turns, once to train on and once held out."""
    messages: tuple[Message, ...] = ()
    for turn, answer in enumerate(answers):
        in_loss = first_in_loss or turn > 0
        messages += (Message("user", f"q{turn}"), Message("assistant", answer, in_loss=in_loss))
    train = Conversation(id=f"{number}", messages=messages)
    return [train, Conversation(id=f"held-{number}", messages=messages, split="held_out")]


def session(
    folder: Path, start: Path, tokenizer: Tokenizer, talks: list[Conversation], **keys: Any
) -> SftSession:
    recipe = Sft(batch_rows=2, precision="fp32", **keys)
    stage = StageContext(folder, Reporter(quiet=True))
    return SftSession(recipe, MethodContext(SITE, stage, tokenizer, AlignmentData(talks), {"start": start}))


def learned(prepared: SftSession, tokenizer: Tokenizer) -> str:
    """The text of all targets with a loss, in the first micro-batch."""
    batch = prepared.micro_batches[0]
    return tokenizer.decode(batch.targets[batch.weights > 0].tolist(), specials=True)


END = "<|end_of_turn|>"


@pytest.mark.parametrize(
    ("keys", "first_in_loss", "text"),
    [
        ({}, True, f"one{END}two{END}three{END}"),
        ({"loss_on": "last"}, True, f"three{END}"),
        ({}, False, f"two{END}three{END}"),
    ],
)
def test_the_loss_is_on_every_answer_or_on_the_last(
    keys: dict[str, Any], first_in_loss: bool, text: str, start: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    talks = talk(0, "one", "two", "three", first_in_loss=first_in_loss)
    assert learned(session(tmp_path, start, tokenizer, talks, **keys), tokenizer) == text


def test_what_is_too_long_is_cut_or_left_out_and_counted(
    start: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    long_answer = "word " * TIME
    question_only = Conversation(
        id="x", messages=(Message("user", long_answer), Message("assistant", "an answer that is not read"))
    )
    prepared = session(
        tmp_path, start, tokenizer, [*talk(0, "short"), *talk(1, "short", long_answer), question_only]
    )
    assert (prepared.packed.conversations, prepared.packed.cut, prepared.packed.unusable) == (2, 1, 1)
    metrics = prepared.finish()
    assert (metrics["cut_conversations"], metrics["unusable_conversations"]) == (1, 1)


def test_neftunes_noise_has_its_scale_and_spares_padding() -> None:
    segments = torch.tensor([[0] * 40 + [1] * 10 + [-1] * 14])
    noise = embedding_noise(segments, 32, 5.0, seed=3)
    for span, length in ((slice(0, 40), 40), (slice(40, 50), 10)):
        bound = 5.0 / (length * 32) ** 0.5
        part = noise[0, span]
        assert part.abs().max() <= bound and part.abs().max() > 0.95 * bound
        assert float(part.std()) == pytest.approx(bound / 3**0.5, rel=0.1)
    assert not noise[0, 50:].any()
    assert torch.equal(noise, embedding_noise(segments, 32, 5.0, seed=3))
    assert not torch.equal(noise, embedding_noise(segments, 32, 5.0, seed=4))


def test_noise_is_added_in_training_and_not_in_validation(
    start: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    talks = talk(0, "one", "two")
    plain = session(tmp_path / "plain", start, tokenizer, talks)
    noisy = session(tmp_path / "noisy", start, tokenizer, talks, neftune_alpha=50.0)
    assert noisy.val_loss_before == plain.val_loss_before
    model = noisy.trained.whole()
    (first,), (again,), (other,) = noisy.batches(0), noisy.batches(0), noisy.batches(1)
    losses = [noisy.loss(model, batch)[0].item() for batch in (first, again, other)]
    assert losses[0] == losses[1] != losses[2]
    assert losses[0] != plain.loss(plain.trained.whole(), plain.batches(0)[0])[0].item()
