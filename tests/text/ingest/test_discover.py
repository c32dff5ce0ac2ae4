"""Which files a path, folder or glob means."""

import os
import shutil
import subprocess
import time
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


def test_a_name_that_is_no_utf8_and_one_that_spells_its_escape_are_two_files(tmp_path: Path) -> None:
    for name in (b"\xff", rb"\xff", rb"\\xff", b"a\xff\\b", rb"a\xff\b", rb"plain\name"):
        (tmp_path / os.fsdecode(name)).write_bytes(name)
    found = list(find([str(tmp_path)]))
    assert len({file.path for file in found}) == 6
    contents = {Path(file.location).read_bytes(): file.path for file in found}
    assert contents[b"\xff"] == r"\xff" and contents[rb"plain\name"] == r"plain\name"


@pytest.mark.parametrize("folder", ["data [v1]", "[x]", "a[!b]c", "one [a] two/[b] three"])
def test_globs_below_a_folder_with_brackets_in_its_name(folder: str, tmp_path: Path) -> None:
    (tmp_path / folder / "deep").mkdir(parents=True)
    for name in ("x.md", "deep/y.md", "z1.txt", "z2.txt"):
        (tmp_path / folder / name).write_text(name)
    assert names(tmp_path / folder / "*.md") == ["x.md"]
    assert names(tmp_path / folder / "**/*.md") == ["x.md", "deep/y.md"]
    assert names(tmp_path / folder / "z[2-9].txt") == ["z2.txt"]


# What is left out


def skipped(*paths: Path | str) -> dict[str, str]:
    return {file.path: file.reject_reason for file in find([str(path) for path in paths], skip_ignored=True)}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    files = {
        "a.txt": "read", "docs/b.md": "read", "workspace/artifacts/ingest-0123456789ab.part/x": "no",
        "elsewhere/artifacts/curate-0123456789ab/documents/0.parquet": "no", "artifacts/mine.txt": "read",
        ".venv/lib/x.py": "no", ".venv/pyvenv.cfg": "home = /usr", "py/env/pyvenv.cfg": "", "py/env/x.py": "no",
        "conda/conda-meta/history": "", "web/node_modules/left-pad/README.md": "no", "web/index.html": "read",
        "__pycache__/x.pyc": "no", ".mypy_cache/x.json": "no",
        "target/CACHEDIR.TAG": "Signature: 8a477f597d28d172789f06886806bc55\n", "target/x.txt": "no",
    }  # fmt: skip
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_workspaces_environments_and_caches_are_left_out_and_named(project: Path) -> None:
    found = skipped(project)
    assert {path for path, aside in found.items() if not aside} == {
        "a.txt", "docs/b.md", "artifacts/mine.txt", "web/index.html",
    }  # fmt: skip
    assert {path: aside for path, aside in found.items() if aside} == {
        "workspace/": "workspace", "elsewhere/": "workspace", ".venv/": "virtual_environment",
        "py/env/": "virtual_environment", "conda/": "virtual_environment", "web/node_modules/": "node_modules",
        "__pycache__/": "cache", ".mypy_cache/": "cache", "target/": "cache",
    }  # fmt: skip


def test_what_is_named_itself_is_read(project: Path) -> None:
    assert skipped(project / ".venv") == {"pyvenv.cfg": "", "lib/x.py": ""}
    assert skipped(project / "workspace")["artifacts/ingest-0123456789ab.part/x"] == ""
    (project / ".gitignore").write_text("*.txt\n")
    assert skipped(project / "a.txt") == {"a.txt": ""}
    assert skipped(project / "*.txt") == {"a.txt": "gitignored"}
    assert len(list(find([str(project)]))) == 17, "without the key everything is read"


GITIGNORES = {
    ".gitignore": "*.log\n!keep.log\nbuild/\n/top.txt\n# comment\n\\#odd\ndoc/**/gen\nspace\\ \n",
    "sub/.gitignore": "!again.log\n/only-here.txt\nfoo/*\n!foo/bar\n",
    "sub/deep/.gitignore": "keep.log\n*.md\n",
}
PATHS = ("a.log", "keep.log", "x/build/y.txt", "build", "top.txt", "x/top.txt", "#odd", "doc/a/b/gen/z", "doc/gen",
         "sub/again.log", "sub/other.log", "sub/only-here.txt", "only-here.txt", "sub/foo/bar", "sub/foo/baz",
         "sub/deep/keep.log", "sub/deep/n.md", "sub/n.md", "space ", "build2/x", "sub/deep/again.log")  # fmt: skip


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_gitignore_files_exclude_what_git_excludes(tmp_path: Path) -> None:
    for name, text in (GITIGNORES | dict.fromkeys(PATHS, "x")).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    command = ["git", "-C", tmp_path, "ls-files", "-z", "--others", "--exclude-standard"]
    seen_by_git = (
        subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip("\0").split("\0")
    )
    assert {path for path, aside in skipped(tmp_path).items() if not aside} == set(seen_by_git)


def test_a_gitignore_of_many_wildcards_takes_no_time(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*a" * 200 + "b\n" + "**/" * 100 + "x\n")
    (tmp_path / ("a" * 200)).write_text("x")
    start = time.process_time()
    assert skipped(tmp_path)["a" * 200] == "" and time.process_time() - start < 2
