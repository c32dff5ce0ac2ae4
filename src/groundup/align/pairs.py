"""Conversations -> preference pairs: the last answer against one with a known fault.

in:  conversations and, for the kind `sampled`, what the fine-tuned model answers
out: pairs of texts, equal for equal seeds

- other: an answer of the same kind about another object; only reading the question tells them apart
- truncated: cut off in the middle, and ended as if that were all
- garbled: words shuffled, dropped or repeated, characters swapped
- sampled: a response of the initial policy
"""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from groundup.core.records import Conversation
from groundup.core.rng import derive_seed
from groundup.text.sentences import split_words

MADE = ("other", "truncated", "garbled")
"""Kinds that are made from texts alone."""


@dataclass(frozen=True)
class Pair:
    """A conversation whose last message is the preferred answer, and a rejected answer."""

    conversation: Conversation
    rejected: str
    kind: str


def made_pairs(conversations: Sequence[Conversation], kind: str, count: int, seed: int) -> list[Pair]:
    """`count` pairs of a kind of MADE, walking through the conversations as often as it takes.

    Fewer where a kind can't be made of them: no other object, or answers of one word.
    """
    groups = defaultdict(list)
    for one in conversations:
        groups[one.kind].append(one)
    pairs: list[Pair] = []
    for number in range(count if conversations else 0):
        if number == len(conversations) and not pairs:
            break
        conversation = conversations[number % len(conversations)]
        generator = random.Random(derive_seed(seed, "pair", kind, number))
        rejected = _fault(conversation, kind, groups[conversation.kind], generator)
        if rejected is not None and rejected != _answer(conversation):
            pairs.append(Pair(conversation, rejected, kind))
    return pairs


def truncated(answer: str, noise: random.Random) -> str | None:
    """The answer up to a word between a fifth and four fifths of it."""
    words, separator = split_words(answer)
    if len(words) < 3:
        return None
    kept = noise.randint(max(1, len(words) // 5), max(1, len(words) * 4 // 5))
    return separator.join(words[:kept])


def garbled(answer: str, noise: random.Random) -> str | None:
    """The answer with one of five faults in it."""
    words, separator = split_words(answer)
    if len(words) < 3:
        return None
    fault = noise.choice((_shuffled, _dropped, _repeated, _swapped, _looped))
    return separator.join(fault(words, noise))


def _answer(conversation: Conversation) -> str:
    return conversation.messages[-1].content


def _fault(
    conversation: Conversation, kind: str, same_kind: Sequence[Conversation], noise: random.Random
) -> str | None:
    answer = _answer(conversation)
    if kind == "truncated":
        return truncated(answer, noise)
    if kind == "garbled":
        return garbled(answer, noise)
    assert kind == "other", kind
    for _ in range(8):
        other = noise.choice(same_kind)
        if other.subject != conversation.subject and _answer(other) != answer:
            return _answer(other)
    return None


def _shuffled(words: list[str], noise: random.Random) -> list[str]:
    """A stretch of at least three words in another order."""
    length = noise.randint(3, len(words))
    start = noise.randint(0, len(words) - length)
    middle = words[start : start + length]
    noise.shuffle(middle)
    return words[:start] + middle + words[start + length :]


def _dropped(words: list[str], noise: random.Random) -> list[str]:
    """A third of the words missing."""
    hit = _third(words, noise)
    return [word for at, word in enumerate(words) if at not in hit]


def _repeated(words: list[str], noise: random.Random) -> list[str]:
    """A third of the words repeated."""
    hit = _third(words, noise)
    return [copy for at, word in enumerate(words) for copy in ([word, word] if at in hit else [word])]


def _looped(words: list[str], noise: random.Random) -> list[str]:
    """A phrase repeated many times, as small models do."""
    start = noise.randint(0, len(words) - 2)
    end = min(len(words), start + noise.randint(2, 8))
    return words[:end] + words[start:end] * noise.randint(1, 3) + words[end:]


def _swapped(words: list[str], noise: random.Random) -> list[str]:
    """Neighbouring characters exchanged in a third of the words."""
    hit = _third(words, noise)
    return [_swap(word, noise) if at in hit else word for at, word in enumerate(words)]


def _third(words: list[str], noise: random.Random) -> set[int]:
    """The places of a third of the words, and of two at least: a fault that can be noticed."""
    return set(noise.sample(range(len(words)), max(2, len(words) // 3)))


def _swap(word: str, noise: random.Random) -> str:
    if len(word) < 2:
        return word
    at = noise.randint(0, len(word) - 2)
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
