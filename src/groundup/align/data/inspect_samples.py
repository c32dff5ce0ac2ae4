"""Samples of alignment data in the terminal, for `groundup inspect NAME --data TABLE`.

in:  the `data` artifact of a run, the name of a table
out: counts, samples with what is in the loss in colour, and the first rejected rows; or JSON
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import islice

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from groundup.core.errors import DataError
from groundup.core.records import Conversation, LabelledResponse, Message, Ranking, Record
from groundup.core.store import Artifact
from groundup.evaluate.alignment_data import KINDS, read_records, record_kind
from groundup.text.documents import read_rejects_log

IN_LOSS, OTHER = "green", "dim"
_SHOWN_REJECTS = 10


def show_samples(stages: Mapping[str, Artifact], table: str, limit: int, as_json: bool) -> None:
    """Print up to `limit` records of a table, spread over its kinds. Raises DataError for an unknown table."""
    artifact = stages.get("data")
    if artifact is None:
        raise DataError("the run has no stage `data`: its blueprint has no align step that learns from data")
    counts = artifact.manifest()["metrics"]["tables"]
    if table != "all" and table not in counts:
        raise DataError(f"--data {table}: there is no such table. The run has: {', '.join(counts)}, all")
    chosen = list(counts) if table == "all" else [table]
    kinds = [kind for kind in KINDS if any(kind in counts[name] for name in chosen)]
    samples: list[Record] = []
    for kind in kinds:
        of_table = (record for record in read_records(artifact.path, kind) if record.source in chosen)
        samples += islice(of_table, max(1, limit // len(kinds)))
    entries = [entry for entry in read_rejects_log(artifact.path) if entry.source in chosen]
    if as_json:
        rejects = [asdict(entry) for entry in entries]
        lines = [{"record": record_kind(record)} | asdict(record) for record in samples]
        print(
            json.dumps(
                {"counts": {name: counts[name] for name in chosen}, "samples": lines, "rejects": rejects}
            )
        )
        return
    console = Console(highlight=False)
    for name in chosen:
        console.print(f"[bold]{escape(name)}[/bold]  {escape(_spelled(counts[name]))}")
    console.print(Text("in the loss", IN_LOSS), Text("not in the loss", OTHER))
    for record in samples:
        _print(record, console)
    for entry in entries[:_SHOWN_REJECTS]:
        console.print(Text(f"{entry.outcome} ({entry.reason}): {entry.detail}", "yellow"))
    if len(entries) > _SHOWN_REJECTS:
        console.print(f"... and {len(entries) - _SHOWN_REJECTS} more rows")


def _print(record: Record, console: Console) -> None:
    console.print(Text(f"\n{record_kind(record)} {record.id} ({record.split})", "bold"))
    if isinstance(record, Conversation):
        _print_messages(record.messages, console)
    elif isinstance(record, Ranking):
        _print_messages(record.prompt, console, OTHER)
        for rank, response in sorted(
            zip(record.ranks, record.responses, strict=True), key=lambda item: item[0]
        ):
            console.print(Text(f"rank {rank}", "bold"))
            _print_messages(response, console)
    elif isinstance(record, LabelledResponse):
        _print_messages(record.prompt, console, OTHER)
        console.print(Text("good" if record.good else "bad", "bold"))
        _print_messages(record.response, console)
    else:
        _print_messages(getattr(record, "messages", ()), console, OTHER)
        console.print(Text(f"reference answer: {getattr(record, 'answer', None)}", OTHER))


def _print_messages(messages: Sequence[Message], console: Console, style: str = "") -> None:
    """Messages by role; without `style`, what is in the loss has a colour of its own."""
    for message in messages:
        learned = message.role == "assistant" and message.in_loss
        line = Text(f"  {message.role}: ", "bold dim")
        console.print(line.append(message.content, style or (IN_LOSS if learned else OTHER)))


def _spelled(counts: Mapping[str, Mapping[str, int]]) -> str:
    return "; ".join(
        f"{kind}: {by_split.get('train', 0):,} to train on, {by_split.get('held_out', 0):,} held out"
        for kind, by_split in counts.items()
    )
