"""Groups, duplicates and evaluation items among the records of all tables.

in:  records that were read from the user's files
out: the same with the group that decides their split; those to drop, with the reason

The methods are curation's (text/curate): equal texts by hash, near-duplicates by MinHash with verification,
evaluation items by shared n-grams. Near-duplicate conversations are dropped. Rankings, labelled responses and prompts
are dropped only where they are equal: two rankings of one prompt share most of their words, and two arithmetic
problems differ in a number.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import pyarrow as pa

from groundup.core.records import Conversation, LabelledResponse, Message, Prompt, Ranking, Record
from groundup.evaluate.alignment_data import record_kind, to_prompt
from groundup.text.batch import DocumentBatch
from groundup.text.curate.decontaminate import Decontaminate, Decontaminator, write_index
from groundup.text.curate.dedup import Dedup
from groundup.text.curate.dedup.clusters import Duplicates, find_duplicates
from groundup.text.curate.dedup.signatures import write_signatures
from groundup.text.curate.eval_texts import evaluation_items
from groundup.text.documents import DOCUMENT_SCHEMA

EARLIEST = Dedup(keep="earliest")
GROUP_DIGITS = 16


@dataclass(frozen=True)
class Drop:
    """A record that is dropped: its number, the reason, and what it equals or contains."""

    number: int
    reason: str
    detail: str


def grouped(records: Sequence[Record], work: Path) -> list[Record]:
    """The records with their groups: those with the same first question, or nearly the same, share one."""
    questions = [_question(record) for record in records]
    unique = list(dict.fromkeys(questions))
    duplicates = _duplicates(unique, work / "questions", EARLIEST)
    group_of = {text: sha256(text.encode()).hexdigest()[:GROUP_DIGITS] for text in unique}
    for row, kept in zip(duplicates.row.tolist(), duplicates.kept_row.tolist(), strict=True):
        group_of[unique[row]] = group_of[unique[kept]]
    made = [(record, group_of[text]) for record, text in zip(records, questions, strict=True)]
    return [replace(record, group=group, subject=record.subject or group) for record, group in made]


def duplicate_drops(records: Sequence[Record], work: Path) -> list[Drop]:
    """The records that equal an earlier one of the same kind, and conversations that nearly do."""
    drops = []
    for kind in dict.fromkeys(map(record_kind, records)):
        numbers = [number for number, record in enumerate(records) if record_kind(record) == kind]
        recipe = EARLIEST.model_copy(update={"fuzzy": kind == "conversations"})
        duplicates = _duplicates([full_text(records[n]) for n in numbers], work / kind, recipe)
        for row, kept, how, similarity in zip(
            duplicates.row.tolist(),
            duplicates.kept_row.tolist(),
            duplicates.kind.tolist(),
            duplicates.similarity.tolist(),
            strict=True,
        ):
            how_much = "equals" if how == "exact" else f"{similarity:.0%} the same as"
            detail = f"{how_much} {place(records[numbers[kept]])}"
            drops.append(Drop(numbers[row], f"{how}_duplicate", detail))
    return drops


def evaluation_drops(records: Sequence[Record], recipe: Decontaminate, work: Path) -> list[Drop]:
    """The records that contain an evaluation item; none without evaluation sets."""
    if not recipe.paths or not records:
        return []
    write_index(recipe, evaluation_items(recipe.paths), work / "items")
    decontaminator = Decontaminator.load(recipe, work / "items")
    result = decontaminator.apply(_batch([full_text(record) for record in records]))
    return [
        Drop(number, reason, detail)
        for number, (reason, detail) in enumerate(zip(result.reason, result.detail or (), strict=True))
        if reason is not None
    ]


def place(record: Record) -> str:
    """File and line of a record of the user's files."""
    path, _, line = record.id.removeprefix(f"{record.source}/").rpartition("#")
    return f"{path}, line {line.split('.')[0]}"


def full_text(record: Record) -> str:
    """Every message of a record with its role, and what people said about the responses."""
    lines = [_text(prompt_of(record))]
    if isinstance(record, Conversation):
        lines = [_text(record.messages)]
    elif isinstance(record, Ranking):
        lines += [f"{rank}: {_text(body)}" for rank, body in zip(record.ranks, record.responses, strict=True)]
        lines.append(record.annotator)
    elif isinstance(record, LabelledResponse):
        lines += [f"{record.good}: {_text(record.response)}"]
    elif isinstance(record, Prompt):
        lines += [record.answer or ""]
    return "\n".join(lines)


def prompt_of(record: Record) -> tuple[Message, ...]:
    """The messages before the response."""
    if isinstance(record, Prompt):
        return record.messages
    assert isinstance(record, Conversation | Ranking | LabelledResponse)
    return to_prompt(record).messages


def _text(messages: Sequence[Message]) -> str:
    return "\n".join(f"{message.role}: {message.content}" for message in messages)


def _question(record: Record) -> str:
    """The first user message, in lower case, with single spaces."""
    first = next((message.content for message in prompt_of(record) if message.role == "user"), "")
    return " ".join(first.lower().split())


def _duplicates(texts: Sequence[str], folder: Path, recipe: Dedup) -> Duplicates:
    write_signatures(folder, [_batch(texts)], recipe)
    return find_duplicates([folder], recipe)


def _batch(texts: Sequence[str]) -> DocumentBatch:
    columns = {name: [""] * len(texts) for name in DOCUMENT_SCHEMA.names} | {"text": list(texts)}
    return DocumentBatch(pa.table(columns, schema=DOCUMENT_SCHEMA))
