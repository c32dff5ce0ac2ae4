"""Packing into fixed shapes, batches as a function of the step, and pairs with the faults they're named after."""

import random
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.align.packing import epoch_indices, fill, pack_all
from groundup.align.pairs import MADE, garbled, made_pairs, truncated
from groundup.core.records import Conversation, Message
from groundup.model.config import DecoderConfig
from groundup.model.value_head import ValueModel

ROWS, TIME, PAD = 3, 16, 99
GROUPS = st.lists(st.lists(st.integers(1, TIME), min_size=1, max_size=ROWS), max_size=40)


@settings(max_examples=60, deadline=None)
@given(GROUPS)
def test_every_sequence_is_packed_once_and_groups_stay_together(lengths: list[list[int]]) -> None:
    names = iter(range(10_000))
    groups = [[[next(names)] * length for length in group] for group in lengths]
    homes: dict[int, set[int]] = {}
    found: Counter[int] = Counter()
    for number, packed in enumerate(pack_all(groups, ROWS, TIME, PAD)):
        assert packed.ids.shape == packed.segments.shape == (ROWS, TIME)
        for place in packed.spans:
            sequence = groups[place.group][place.member]
            assert packed.ids.flatten()[place.start : place.start + len(sequence)].tolist() == sequence
            assert place.start // TIME == (place.start + len(sequence) - 1) // TIME
            homes.setdefault(place.group, set()).add(number)
        real = packed.segments >= 0
        found.update(packed.ids[real].tolist())
        assert len(set(packed.segments[real].tolist())) == len(packed.spans)
    assert all(len(micro) == 1 for micro in homes.values())
    assert found == Counter(token for group in groups for sequence in group for token in sequence)


def test_little_is_padded() -> None:
    noise = random.Random(0)
    lengths = [[noise.randint(20, 100)] for _ in range(5000)]
    used = sum(length for (length,) in lengths)
    assert used / (len(fill(lengths, 8, 512)) * 8 * 512) > 0.95


def test_a_sequences_value_does_not_depend_on_what_it_is_packed_with() -> None:
    model = ValueModel(DecoderConfig(100, 32, 2, 2, 2, 16, 48, max_seq_len=TIME))
    model.decoder.init_weights(0)
    sequences = [[[5, 6, 7]], [[1] * 9], [[8, 9]], [[2] * 16], [[3, 4]]]
    alone = [model.values(torch.tensor(group))[0] for group in sequences]
    for packed in pack_all(sequences, ROWS, TIME, PAD):
        values = model.values(packed.ids, packed.segments).flatten()
        for place in packed.spans:
            wanted = alone[place.group]
            assert torch.allclose(values[place.start : place.start + len(wanted)], wanted, atol=1e-5)


def test_every_item_is_taken_once_per_epoch_in_a_new_order() -> None:
    taken = [item for step in range(10) for item in epoch_indices(step, 7, 2, 0, "x")]
    epochs = [taken[:7], taken[7:14]]
    assert [sorted(epoch) for epoch in epochs] == [list(range(7))] * 2
    assert epochs[0] != epochs[1]
    assert epoch_indices(3, 7, 2, 0, "x") == taken[6:8]


ANSWER = "textwrap.dedent: Remove any common leading whitespace from every line in the text."


def example(number: int, kind: str = "does") -> Conversation:
    answer = f"thing{number}: it has the number {number} and does {number} things."
    return conversation(f"id{number}", kind, f"thing{number}", answer)


def conversation(name: str, kind: str, subject: str, answer: str) -> Conversation:
    messages = (Message("user", "What is it?"), Message("assistant", answer))
    return Conversation(id=name, kind=kind, subject=subject, messages=messages)


@pytest.mark.parametrize("seed", range(20))
def test_a_truncated_answer_is_a_true_beginning(seed: int) -> None:
    cut = truncated(ANSWER, random.Random(seed))
    assert cut is not None
    assert ANSWER.startswith(cut)
    assert 0 < len(cut) < len(ANSWER)
    assert truncated("one two", random.Random(seed)) is None


@pytest.mark.parametrize("seed", range(20))
def test_a_garbled_answer_is_made_of_the_right_ones_characters(seed: int) -> None:
    found = garbled(ANSWER, random.Random(seed))
    assert found is not None
    assert set(found) <= set(ANSWER)


@pytest.mark.parametrize(
    "answer",
    ["黑豹队只丢了308分，在联赛中排名第六。", "แพนเทอร์สเสียไปเพียง308แต้มและอยู่ในอันดับที่หก"],
    ids=["Chinese", "Thai"],
)
def test_answers_without_spaces_are_truncated_and_garbled_too(answer: str) -> None:
    for seed in range(10):
        cut, mixed = truncated(answer, random.Random(seed)), garbled(answer, random.Random(seed))
        assert cut is not None and answer.startswith(cut) and 0 < len(cut) < len(answer)
        assert mixed is not None and set(mixed) <= set(answer)


def test_the_other_answer_is_about_another_object_of_the_same_kind() -> None:
    examples = [example(i, "does" if i % 2 else "which") for i in range(20)]
    pairs = made_pairs(examples, "other", 40, seed=0)
    assert len(pairs) == 40
    answers = {one.messages[-1].content: one for one in examples}
    for pair in pairs:
        other = answers[pair.rejected]
        assert other.subject != pair.conversation.subject
        assert other.kind == pair.conversation.kind


@pytest.mark.parametrize("kind", MADE)
def test_pairs_depend_on_the_seed_alone(kind: str) -> None:
    examples = [example(i) for i in range(20)]
    assert made_pairs(examples, kind, 30, seed=1) == made_pairs(examples, kind, 30, seed=1)
    assert made_pairs(examples, kind, 30, seed=1) != made_pairs(examples, kind, 30, seed=2)


@pytest.mark.parametrize("kind", MADE)
def test_where_no_pair_can_be_made_there_is_none(kind: str) -> None:
    lonely = conversation("id", "does", "x", "x")
    assert made_pairs([lonely], kind, 1000, seed=0) == []
    assert made_pairs([], kind, 1000, seed=0) == []
