"""Rows of preferences -> a prompt, its responses and their ranks.

in:  a row of one layout (see datasets/preferences.py)
out: Responses; or a RowError that says what is wrong
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from groundup.align.data.chat_messages import (
    RowError,
    check_prompt,
    read_answer,
    read_messages,
    read_transcript,
    with_system,
)
from groundup.align.data.file_rows import RowContext
from groundup.align.data.rows_of_prompts import PROMPTS, first_column, read_prompt
from groundup.core.records import Message

Messages = tuple[Message, ...]
LISTED = ("responses", "answers", "completions", "rankings")
COMPLETIONS = ("completion", "response", "output", "answer")
VOTES = ("winner", "vote", "preference", "label")
RESPONSE_PAIRS = (
    ("response_a", "response_b"),
    ("conversation_a", "conversation_b"),
    ("response_1", "response_2"),
    ("response 1", "response 2"),
    ("response1", "response2"),
    ("output_1", "output_2"),
)
ARENA = {
    "model_a": "a",
    "model_b": "b",
    "tie": "tie",
    "tie (bothbad)": "tie",
    "both_bad": "tie",
    "a": "a",
    "b": "b",
}
"""Votes whose values say what they mean."""
_RANKS = {"a": (1, 2), "b": (2, 1), "tie": (1, 1)}
_TEXTS = ("response", "answer", "completion", "text", "content")


@dataclass(frozen=True)
class Responses:
    """Responses to one prompt. `good`: the label of a single one."""

    prompt: Messages
    responses: tuple[Messages, ...]
    ranks: tuple[int, ...] = ()
    margin: float | None = None
    scores: tuple[float, ...] | None = None
    annotator: str = ""
    good: bool | None = None


def pairs(row: Mapping[str, Any], context: RowContext, meanings: Mapping[str, str]) -> list[Responses]:
    """A chosen and a rejected response."""
    names = [first_column(row, (side, f"{side}_response")) for side in ("chosen", "rejected")]
    for name, side in zip(names, ("chosen", "rejected"), strict=True):
        if name is None:
            raise RowError(f"missing_{side}", f"`{side}` is missing or empty")
    chosen, rejected = (row[str(name)] for name in names)
    prompt, responses = _compared(row, [(chosen, "chosen"), (rejected, "rejected")], context)
    scores = [
        _number(row, *both)
        for both in (("score_chosen", "chosen_score"), ("score_rejected", "rejected_score"))
    ]
    margin = _number(row, "margin")
    if None not in scores and margin is None:
        margin = scores[0] - scores[1]  # type: ignore[operator]
    both_scores = None if None in scores else (scores[0], scores[1])
    return [Responses(prompt, responses, (1, 2), margin, both_scores, _annotator(row))]  # type: ignore[arg-type]


def ranked(row: Mapping[str, Any], context: RowContext, meanings: Mapping[str, str]) -> list[Responses]:
    """A list of responses with ranks or scores."""
    name = first_column(row, LISTED) or "responses"
    items = row.get(name)
    if not isinstance(items, list) or len(items) < 2:
        raise RowError("too_few_responses", f"`{name}` needs at least two responses")
    values = [_text_of(item) for item in items]
    responses = tuple(
        read_answer(value, f"{name}, response {number}", context.on_change)
        for number, value in enumerate(values, 1)
    )
    ranks, scores = (
        row.get(plural) or [item.get(single) if isinstance(item, Mapping) else None for item in items]
        for plural, single in (("ranks", "rank"), ("scores", "score"))
    )
    for label, numbers in (("ranks", ranks), ("scores", scores)):
        if any(number is not None for number in numbers):
            _check_numbers(label, numbers, len(items))
    if all(number is None for number in (*ranks, *scores)):
        raise RowError("no_ranks", f"{len(items)} responses without `ranks` or `scores`")
    both = tuple(map(float, scores)) if scores[0] is not None else None
    order = tuple(map(float, ranks)) if ranks[0] is not None else tuple(-score for score in both or ())
    dense = {value: rank for rank, value in enumerate(sorted(set(order)), 1)}
    prompt = read_prompt(row, context.on_change)
    return [Responses(prompt, responses, tuple(dense[x] for x in order), None, both, _annotator(row))]


def votes(row: Mapping[str, Any], context: RowContext, meanings: Mapping[str, str]) -> list[Responses]:
    """Two responses and a vote."""
    names = next((both for both in RESPONSE_PAIRS if both[0] in row and both[1] in row), None)
    if names is None:
        raise RowError("missing_response", "two responses are needed: `response_a` and `response_b`")
    vote = next((row[name] for name in VOTES if row.get(name) is not None), None)
    if vote is None:
        known = ", ".join(VOTES)
        raise RowError(
            "no_vote", f"no vote in {known}: name its column with fields.winner, and its values with votes"
        )
    winner = (meanings or ARENA).get(str(vote))
    if winner is None and not meanings:
        raise RowError(
            "vote_of_unstated_meaning",
            f"the vote is {vote!r}, and the file does not say what it means: name it in the [[data]] table, e.g. "
            'votes = { "1" = "a", "2" = "b", "0" = "tie" }',
        )
    if winner is None:
        raise RowError("bad_vote", f"the vote is {vote!r}; votes has {', '.join(meanings)}")
    prompt, responses = _compared(row, [(row[name], name) for name in names], context)
    return [Responses(prompt, responses, _RANKS[winner], annotator=_annotator(row))]


def labelled(row: Mapping[str, Any], context: RowContext, meanings: Mapping[str, str]) -> list[Responses]:
    """One response that is good or bad."""
    label = row.get("label", row.get("kto_tag"))
    if not isinstance(label, bool | int) or label not in (0, 1):
        raise RowError("bad_label", f"`label` is {label!r}; expected true or false")
    name = first_column(row, COMPLETIONS)
    if name is not None:
        response = read_answer(row[name], name, context.on_change)
        return [Responses(read_prompt(row, context.on_change), (response,), good=bool(label))]
    column = first_column(row, PROMPTS)
    if column is None:
        raise RowError("no_prompt", f"no prompt; the columns are {', '.join(map(str, row))}")
    messages = with_system(read_messages(row[column], column, context.on_change), row)
    if messages[-1].role != "assistant" or len(messages) < 2:
        raise RowError("no_answer", "the conversation does not end with an assistant message")
    check_prompt(messages[:-1])
    return [Responses(tuple(messages[:-1]), (tuple(messages[-1:]),), good=bool(label))]


def oasst(row: Mapping[str, Any], context: RowContext, meanings: Mapping[str, str]) -> list[Responses]:
    """Every message of a tree whose replies by the assistant are ranked."""
    rankings: list[Responses] = []
    waiting: list[tuple[list[dict[str, Any]], Any]] = [([], row.get("prompt"))]
    while waiting:
        before, node = waiting.pop()
        if not isinstance(node, Mapping):
            raise RowError("not_a_message", "a node of the tree is not an object")
        path = [*before, {"role": node.get("role"), "content": node.get("text")}]
        replies = [reply for reply in node.get("replies") or () if not reply.get("deleted")]
        waiting += [(path, reply) for reply in reversed(replies)]
        ranks = [reply for reply in replies if reply.get("rank") is not None]
        if len(ranks) > 1 and node.get("role") in ("prompter", "user"):
            prompt = tuple(read_messages(path, "path", context.on_change))
            responses = tuple(read_answer(reply.get("text"), "reply", context.on_change) for reply in ranks)
            rankings.append(Responses(prompt, responses, tuple(int(reply["rank"]) + 1 for reply in ranks)))
    if not rankings:
        raise RowError("no_ranked_replies", "no message of the tree has two ranked replies")
    return rankings


def _compared(
    row: Mapping[str, Any], sides: Sequence[tuple[Any, str]], context: RowContext
) -> tuple[Messages, tuple[Messages, ...]]:
    """Prompt and responses of two sides: with a prompt of its own, or whole conversations that share a beginning."""
    own = first_column(row, PROMPTS)
    if own is not None:
        prompt = read_prompt(row, context.on_change)
        bodies = tuple(read_answer(value, name, context.on_change) for value, name in sides)
        whole = tuple(message for message in prompt if message.role != "system")
        return prompt, tuple(body[len(whole) :] if body[: len(whole)] == whole else body for body in bodies)
    conversations = [
        read_transcript(value, name)
        if isinstance(value, str)
        else read_messages(value, name, context.on_change)
        for value, name in sides
    ]
    shared = _shared(conversations)
    prompt = tuple(with_system(conversations[0][:shared], row))
    if not prompt:
        raise RowError(
            "no_shared_prompt", f"{' and '.join(f'`{name}`' for _, name in sides)} share no prompt"
        )
    check_prompt(prompt)
    responses = tuple(tuple(messages[shared:]) for messages in conversations)
    for body, (_, name) in zip(responses, sides, strict=True):
        if body[-1].role != "assistant":
            raise RowError("no_answer", f"`{name}` does not end with an assistant message")
    return prompt, responses


def _shared(conversations: Sequence[Sequence[Message]]) -> int:
    """Number of messages that all conversations begin with, such that an answer follows in each."""
    shared = 0
    for column in zip_longest(*conversations):
        if any(message != column[0] for message in column):
            break
        shared += 1
    shared = min(shared, *(len(messages) - 1 for messages in conversations))
    while shared and conversations[0][shared - 1].role == "assistant":
        shared -= 1
    return shared


def _text_of(item: Any) -> Any:
    """The response of a list's entry: text, or messages."""
    if isinstance(item, Mapping):
        return next((item[name] for name in _TEXTS if item.get(name) is not None), "")
    return item


def _check_numbers(name: str, numbers: Any, count: int) -> None:
    if not isinstance(numbers, list) or len(numbers) != count:
        raise RowError("ranks_mismatch", f"{count} responses, but {len(numbers)} {name}")
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise RowError("bad_rank", f"`{name}` has {number!r}, which is no number")


def _number(row: Mapping[str, Any], *names: str) -> float | None:
    name = first_column(row, names)
    if name is None:
        return None
    value = row[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RowError("bad_score", f"`{name}` is {value!r}, which is no number")
    return float(value)


def _annotator(row: Mapping[str, Any]) -> str:
    return str(row.get("annotator") or "")
