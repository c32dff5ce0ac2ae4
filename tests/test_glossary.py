"""The project's words: replaced names and phrases don't come back (see docs/reference/glossary.md)."""

import ast
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "groundup"

PHRASES = {
    r"river": "pipeline",
    r"ledgers?": "rejects log; memory tracker",
    r"aside": "rejected",
    r"canar(y|ies)": "synthetic PII",
    r"intakes?": "ingest",
    r"acquir(e|es|ed|ing)": "ingest",
    r"slots?": "registry",
    r"groundup parts": "groundup plugins",
    r"fresh": "up to date; new",
    r"lookouts?": "watchdog",
    r"signs? of life": "heartbeat",
    r"(stand|stands|stood|standing) still": "hang",
    r"meeting( place)?s?": "rendezvous",
    r"price of a nat": "KL penalty coefficient",
    r"start policy": "reference policy",
    r"judges?|judged|judging": "reward model; filter",
    r"what the loss sees": "loss mask",
    r"learnt": "learned; trained; in the loss",
    r"whoever": "(a noun)",
    r"that much": "(a number or noun)",
    r"anew": "again",
    r"recompute": "activation_checkpointing",
    r"kl_stop": "max_kl",
    r"unended_penalty": "missing_eos_penalty",
    r"neuron_beta": "normuon_beta2",
    r"memory of the squares": "beta2",
    r"Nobody may think": "(name the subject)",
}
"""Regular expression, matched between word boundaries and without regard to case -> the word to use."""

NAMES = set(
    """
    Site Slot part_name is_part spell appear publish_folder disk_errors_in_words Work outside earlier say Reached
    damage discard spelling canonical seed_of share_of
    Pieces Runs Canary canaries Verdict Verdicts Tally near_pairs minima Sets _unpack Note
    Rows row_indices Piece Rendered.learn
    ScalarModel Trunk Turn angles seen remember look_up first_weight publish adopt
    World readers leads concludes told_by_leader aside Lookout Stand blame
    Learner forget Outcome boundary made_under neuron_beta
    Given Judge makes phases rollouts_per_phase kl_stop unended_penalty
    marks familiar answered Bench story river
    said found told asked mine
    """.split()
)
"""Names that no class, function, argument, variable or field in src may have."""

FILES = set(
    """
    site slot durable intake regular reading helper items words characters private canaries repeats near_pairs minima
    packed heads counts published _published grouped world ranks cluster meeting lookout spread owners figures
    accounting traffic ledger memory stages _guests guard watch saver checkpoints start angles drawing probes sampled
    picture verdicts judging planning keeping walk
    """.split()
)
"""Module names that were replaced."""

ONE_DEFINITION = ("Batch", "Place", "Job", "Kind", "parts_of")
"""Classes and functions with at most one definition in src."""

ALLOWED: dict[tuple[str, str], str] = {
    ("src/groundup/book/figures.py", "figures"): "plots of the book",
    ("src/groundup/book/drawing.py", "drawing"): "the SVG writer",
}
"""(path, word) -> the reason why the word is meant literally there."""


def areas() -> list[str]:
    packages = sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())
    return [*packages, "top", "docs", "README.md", "CONTRIBUTING.md", "blueprints", "launch"]


def files(area: str) -> list[Path]:
    if area == "top":
        return sorted(PACKAGE.glob("*.py"))
    folder = PACKAGE / area if (PACKAGE / area).is_dir() else ROOT / area
    paths = [folder] if folder.is_file() else sorted(folder.rglob("*"))
    return [
        path
        for path in paths
        if path.suffix in (".py", ".md", ".toml", ".typ", ".js", ".html", ".sh", ".yaml")
    ]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def allowed(path: Path, word: str) -> bool:
    return (relative(path), word.lower()) in ALLOWED


@lru_cache
def pattern() -> re.Pattern[str]:
    """Any of the phrases; `_` counts as a word boundary."""
    return re.compile(rf"(?<![a-z0-9])(?:{'|'.join(PHRASES)})(?![a-z0-9])", re.IGNORECASE)


def phrases(path: Path) -> Iterator[str]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        for match in pattern().finditer(line):
            if not allowed(path, match[0]):
                yield f"{relative(path)}:{number}: {match[0]!r} -> {replacement(match[0])}"


def replacement(word: str) -> str:
    return next(new for old, new in PHRASES.items() if re.fullmatch(old, word, re.IGNORECASE))


def bound_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, name) of every class, function, argument, assigned variable and import alias."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id if isinstance(node, ast.Name) else node.attr
        elif isinstance(node, ast.alias) and node.asname:
            yield node.lineno, node.asname


@pytest.mark.parametrize("area", areas())
def test_replaced_phrases_do_not_occur(area: str) -> None:
    assert [hit for path in files(area) for hit in phrases(path)] == []


@pytest.mark.parametrize("area", [area for area in areas() if (PACKAGE / area).is_dir() or area == "top"])
def test_replaced_names_are_not_bound(area: str) -> None:
    hits = [
        f"{relative(path)}:{line}: {name}"
        for path in files(area)
        if path.suffix == ".py"
        for line, name in bound_names(ast.parse(path.read_text(encoding="utf-8")))
        if name in NAMES and not allowed(path, name)
    ]
    assert hits == []


def test_replaced_module_names_do_not_exist() -> None:
    hits = [relative(path) for path in sorted(PACKAGE.rglob("*.py")) if path.stem in FILES]
    assert [hit for hit in hits if not allowed(ROOT / hit, Path(hit).stem)] == []


def test_one_word_has_one_definition() -> None:
    definitions: dict[str, list[str]] = {name: [] for name in ONE_DEFINITION}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name in definitions:
                definitions[node.name].append(f"{relative(path)}:{node.lineno}")
    assert {name: found for name, found in definitions.items() if len(found) > 1} == {}


REPEATED_FILES = {
    "__init__": "packages",
    "engine": "infer/engine.py generates; parallel/engine.py is the protocol of training engines",
}
"""File names that occur more than once, with the reason."""


def test_two_files_of_one_name_have_one_meaning() -> None:
    by_name: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        by_name.setdefault(path.stem, []).append(relative(path))
    assert {n: p for n, p in by_name.items() if len(p) > 1 and n not in REPEATED_FILES} == {}
