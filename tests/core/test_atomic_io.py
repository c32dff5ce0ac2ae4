"""Durable writes: the old or the new, never neither, never a mixture."""

import json
from pathlib import Path

from groundup.core import atomic_io


def test_a_write_replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.json"
    atomic_io.write_json(path, {"a": 1, "long": "x" * 1000})
    atomic_io.write_json(path, {"b": 2})
    assert json.loads(path.read_text()) == {"b": 2}
    assert [item.name for item in path.parent.iterdir()] == ["file.json"]


def test_text_that_utf8_cannot_spell_is_escaped(tmp_path: Path) -> None:
    atomic_io.write_text(tmp_path / "t", "a\ud800b")
    assert (tmp_path / "t").read_text() == "a\\ud800b"


def test_a_folder_replaces_another_whole(tmp_path: Path) -> None:
    for name, content in (("final", "old"), ("part", "new")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(content)
    atomic_io.publish_dir(tmp_path / "part", tmp_path / "final")
    assert (tmp_path / "final" / "file").read_text() == "new"
    assert sorted(item.name for item in tmp_path.iterdir()) == ["final"]


def test_the_order_is_files_then_rename_then_parent(tmp_path: Path, monkeypatch) -> None:
    seen: list[str] = []
    rename, fsync_file, fsync_folder = Path.rename, atomic_io._fsync_file, atomic_io.fsync_dir
    monkeypatch.setattr(Path, "rename", lambda self, to: seen.append("rename") or rename(self, to))
    monkeypatch.setattr(atomic_io, "_fsync_file", lambda path: seen.append("file") or fsync_file(path))
    monkeypatch.setattr(
        atomic_io, "fsync_dir", lambda path: seen.append(f"folder {path.name}") or fsync_folder(path)
    )
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "file").write_text("x")
    atomic_io.publish_dir(tmp_path / "part", tmp_path / "final")
    assert seen == ["file", "folder part", "rename", f"folder {tmp_path.name}"]
