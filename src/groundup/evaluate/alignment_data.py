"""Alignment data on disk: conversations, rankings, labelled responses and prompts, a file for each kind.

in:  records; or the folder of an `alignment_data` artifact, and the names of the `[[data]]` tables to read
out: <kind>.jsonl.zst, equal for equal records; records by kind and split

A prompt is on one side of the split only: all records of a group have the same split.
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import zstandard
from pydantic import TypeAdapter

from groundup.core.atomic_io import write_bytes
from groundup.core.records import Conversation, LabelledResponse, Message, Prompt, Ranking, Record, Split

RecordKind = Literal["conversations", "rankings", "labelled", "prompts"]
_TYPES: dict[RecordKind, type[Record]] = {
    "conversations": Conversation,
    "rankings": Ranking,
    "labelled": LabelledResponse,
    "prompts": Prompt,
}
KINDS: tuple[RecordKind, ...] = tuple(_TYPES)
_ADAPTERS: dict[RecordKind, TypeAdapter[Any]] = {kind: TypeAdapter(made) for kind, made in _TYPES.items()}


def record_kind(record: Record) -> RecordKind:
    """The kind of a record."""
    return next(kind for kind, made in _TYPES.items() if type(record) is made)


class AlignmentData:
    """The records of some `[[data]]` tables, by kind and split, in the order of the tables and their files."""

    def __init__(self, records: Iterable[Record]) -> None:
        by_kind: dict[RecordKind, list[Record]] = {kind: [] for kind in KINDS}
        for record in records:
            by_kind[record_kind(record)].append(record)
        self._records: dict[RecordKind, Sequence[Any]] = dict(by_kind)

    @staticmethod
    def load(folder: Path, sources: Sequence[str] = ()) -> "AlignmentData":
        """The records of an artifact; sources: names of the tables, none = all of them."""
        return AlignmentData(
            record
            for kind in KINDS
            for record in read_records(folder, kind)
            if not sources or record.source in sources
        )

    def conversations(self, split: Split) -> list[Conversation]:
        """The conversations of a split."""
        return self._of("conversations", split)

    def rankings(self, split: Split) -> list[Ranking]:
        """The ranked responses of a split."""
        return self._of("rankings", split)

    def labelled(self, split: Split) -> list[LabelledResponse]:
        """The responses with a label of a split."""
        return self._of("labelled", split)

    def prompts(self, split: Split) -> list[Prompt]:
        """The prompts of a split; without a table that has prompts, those of the other kinds, each once."""
        return self._of("prompts", split) if self._records["prompts"] else self._derived_prompts(split)

    def _of(self, kind: RecordKind, split: Split) -> list[Any]:
        return [record for record in self._records[kind] if record.split == split]

    def _derived_prompts(self, split: Split) -> list[Prompt]:
        prompts: dict[tuple[Message, ...], Prompt] = {}
        for kind in ("conversations", "rankings", "labelled"):
            for record in self._of(kind, split):
                prompt = to_prompt(record)
                prompts.setdefault(prompt.messages, prompt)
        return list(prompts.values())


def to_prompt(record: Conversation | Ranking | LabelledResponse) -> Prompt:
    """The prompt of a record: a conversation's messages before its last one, which is the reference answer."""
    answer: str | None
    if isinstance(record, Conversation):
        messages, answer = record.messages[:-1], record.messages[-1].content
    elif isinstance(record, Ranking):
        best = record.responses[record.ranks.index(min(record.ranks))]
        messages, answer = record.prompt, best[-1].content
    else:
        messages, answer = record.prompt, record.response[-1].content if record.good else None
    return Prompt(
        id=record.id,
        kind=record.kind,
        group=record.group,
        source=record.source,
        subject=record.subject,
        split=record.split,
        messages=messages,
        answer=answer,
    )


def write_records(folder: Path, records: Iterable[Record]) -> None:
    """Write records of any kinds; a kind without records has no file."""
    lines: dict[RecordKind, list[bytes]] = {kind: [] for kind in KINDS}
    for record in records:
        kind = record_kind(record)
        lines[kind].append(_ADAPTERS[kind].dump_json(record, exclude_defaults=True) + b"\n")
    for kind, written in lines.items():
        if written:
            write_bytes(_file(folder, kind), zstandard.ZstdCompressor().compress(b"".join(written)))


def read_records(folder: Path, kind: RecordKind) -> Iterator[Any]:
    """The records of one kind in an artifact, in their order."""
    path = _file(folder, kind)
    if not path.exists():
        return
    with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
        for line in io.BufferedReader(stream):
            yield _ADAPTERS[kind].validate_json(line)


def _file(folder: Path, kind: RecordKind) -> Path:
    return folder / f"{kind}.jsonl.zst"
