"""Tables of documents and of the rejects log."""

from pathlib import Path

from groundup.text.documents import REJECTS, RejectsLogEntry, RejectsLogWriter, read_rejects_log


def test_a_number_of_any_size_is_kept_in_the_rejects_log(tmp_path: Path) -> None:
    """Files declare lengths that a 64-bit float doesn't hold exactly, such as 999999999999999999."""
    about = ("id", "files", "a.warc#1", "ingest", "rejected", "too_large")
    with RejectsLogWriter(tmp_path / REJECTS / "0.parquet") as writer:
        writer.write([RejectsLogEntry(*about, value=10**18 - 1, threshold=256), RejectsLogEntry(*about)])
    assert [(entry.value, entry.threshold) for entry in read_rejects_log(tmp_path)] == [
        (1e18, 256),
        (None, None),
    ]
