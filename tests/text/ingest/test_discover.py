"""Which files a path, folder or glob means."""

from pathlib import Path

import pytest

from groundup.core.errors import DataError
from groundup.text.ingest.discover import find, glob_to_regex


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("a/x.md", "a/y.txt", "a/deep/z.md", "b/x.md", "c/docs/q.md", "d/docs/q.md", "[odd].md"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def names(*paths: Path | str) -> list[str]:
    return [file.path for file in find([str(path) for path in paths])]


def test_a_folder_means_everything_in_it_in_order(tree: Path) -> None:
    assert names(tree / "a") == ["x.md", "y.txt", "deep/z.md"]


def test_a_file_means_itself(tree: Path) -> None:
    assert names(tree / "a/y.txt") == ["y.txt"]
    assert names(tree / "[odd].md") == ["[odd].md"]


def test_one_star_stays_in_a_folder_two_cross_them(tree: Path) -> None:
    assert names(tree / "a/*.md") == ["x.md"]
    assert names(tree / "a/**/*.md") == ["x.md", "deep/z.md"]
    assert names(tree / "*/x.md") == ["a/x.md", "b/x.md"]


def test_several_roots_put_their_names_in_front(tree: Path) -> None:
    assert names(tree / "b", tree / "a/*.txt") == ["b/x.md", "a/y.txt"]
    assert names(tree / "c/docs", tree / "d/docs") == ["docs/q.md", "docs-2/q.md"]


def test_overlapping_paths_give_each_file_once(tree: Path) -> None:
    assert names(tree / "a", tree / "a/x.md", tree / "a/**/*.md") == ["x.md", "y.txt", "deep/z.md"]


def test_a_link_to_a_folder_within_is_not_walked_twice(tree: Path) -> None:
    (tree / "a" / "again").symlink_to("deep")
    found = {file.path: file.reject_reason for file in find([str(tree / "a")])}
    assert found == {"again": "symlink_to_folder", "x.md": "", "y.txt": "", "deep/z.md": ""}


def test_a_name_that_is_no_utf8_is_spelled_with_escapes(tmp_path: Path) -> None:
    (tmp_path / "caf\udce9.txt").write_text("x")
    assert names(tmp_path) == [r"caf\xe9.txt"]


@pytest.mark.parametrize(
    ("pattern", "path", "means"),
    [
        ("**/*.md", "x.md", True),
        ("**/*.md", "a/b/x.md", True),
        ("*.md", "a/x.md", False),
        ("a/**", "a/b/c", True),
        ("v[0-9].txt", "v7.txt", True),
        ("v[!0-9].txt", "v7.txt", False),
        ("v?.txt", "v/.txt", False),
        ("a+b.txt", "aab.txt", False),
    ],
)
def test_globs(pattern: str, path: str, means: bool) -> None:
    assert (glob_to_regex(pattern).fullmatch(path) is not None) == means


def test_an_empty_folder_and_a_pattern_without_a_match_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    with pytest.raises(DataError, match="is a folder without any file"):
        list(find([str(tmp_path / "texts")]))
    with pytest.raises(DataError, match="matches no file"):
        list(find([str(tmp_path / "texts" / "*.txt")]))
