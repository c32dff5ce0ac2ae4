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
    r"groundup parts": "groundup plugins",
    r"fresh": "up to date; new",
    r"lookouts?": "watchdog",
    r"signs? of life": "heartbeat",
    r"(stand|stands|stood|standing) still": "hang",
    r"meeting( place)?s?": "rendezvous",
    r"price of a nat": "KL penalty coefficient",
    r"start policy": "reference policy; initial policy",
    r"judges?|fates|judging": "reward model; filter",
    r"what the loss sees": "loss mask",
    r"learnt": "learned; trained; in the loss",
    r"whoever": "a noun",
    r"that much": "a number",
    r"anew": "again",
    r"runtime\.recompute|recompute =": "activation_checkpointing",
    r"kl_stop": "max_kl",
    r"unended_penalty": "missing_eos_penalty",
    r"neuron_beta": "normuon_beta2",
    r"memory of the squares": "beta2",
    r"as a share of its peak": "fraction of the peak",
    r"who trains on these ranks": "training backend",
    r"nobody may think": "name the subject",
    r"who sees whom": "attention mask",
    r"computed again it was not": "the recomputed step was finite",
    r"holds no table": "expected a JSON object",
}
"""Regular expression, matched between word boundaries and without regard to case -> the word to use."""

NAMES = {
    "said",
    "found",
    "told",
    "asked",
    "mine",
    "story",
    "river",
    "Site",
    "Slot",
    "part_name",
    "is_part",
    "spell",
    "appear",
    "publish_folder",
    "disk_errors_in_words",
    "Work",
    "Reached",
    "spelling",
    "canonical",
    "seed_of",
    "share_of",
    "Pieces",
    "Runs",
    "Canary",
    "canaries",
    "Verdict",
    "Verdicts",
    "Tally",
    "near_pairs",
    "minima",
    "Sets",
    "_unpack",
    "Note",
    "aside",
    "row_indices",
    "Piece",
    "ScalarModel",
    "Trunk",
    "Turn",
    "remember",
    "look_up",
    "first_weight",
    "adopt",
    "World",
    "readers",
    "leads",
    "concludes",
    "told_by_leader",
    "Lookout",
    "Stand",
    "blame",
    "Learner",
    "forget",
    "boundary",
    "made_under",
    "neuron_beta",
    "Given",
    "Judge",
    "makes",
    "phases",
    "rollouts_per_phase",
    "kl_stop",
    "unended_penalty",
    "marks",
    "familiar",
    "answered",
    "Bench",
}
"""Names that no class, function, argument, variable or field of the package may have."""

MEMBERS = {
    "StageContext": {"outside", "earlier", "say", "mark"},
    "Store": {"damage", "discard"},
    "Artifact": {"damage"},
    "ParallelContext": {"readers", "leads", "concludes", "aside"},
    "TrainEngine": {"gradient", "update", "forget", "score"},
    "AttentionKernel": {"see"},
    "StaticKVCache": {"remember", "see"},
    "MethodContext": {"reads"},
    "CheckContext": {"bench"},
    "RenderedChat": {"learn"},
}
"""Class -> members that were replaced, where the word itself is fine elsewhere."""

FILES = {
    "site",
    "slot",
    "durable",
    "intake",
    "regular",
    "reading",
    "helper",
    "items",
    "words",
    "characters",
    "private",
    "canaries",
    "repeats",
    "near_pairs",
    "minima",
    "packed",
    "heads",
    "counts",
    "published",
    "_published",
    "grouped",
    "world",
    "ranks",
    "cluster",
    "meeting",
    "lookout",
    "spread",
    "owners",
    "figures",
    "accounting",
    "traffic",
    "ledger",
    "memory",
    "stages",
    "_guests",
    "guard",
    "watch",
    "saver",
    "checkpoints",
    "start",
    "angles",
    "drawing",
    "probes",
    "sampled",
    "picture",
    "verdicts",
    "judging",
    "planning",
    "keeping",
    "walk",
}
"""Module names that were replaced."""

ONE_DEFINITION = ("Batch", "Place", "Job", "Kind", "parts_of")
"""Classes and functions with at most one definition in src."""

ALLOWED: dict[tuple[str, str], str] = {
    ("src/groundup/book/figures.py", "figures"): "plots of the book",
    ("src/groundup/book/drawing.py", "drawing"): "the SVG writer",
    ("src/groundup/doctor/synthetic_pii/__init__.py", "canary"): "part of a seed",
}
"""(path, word) -> the reason why the word stays."""

REPEATED_FILES = {
    "__init__": "packages",
    "command": "a CLI command's code: export/, text/inspect/",
    "engine": "infer/engine.py generates; parallel/engine.py is the protocol of training engines",
    "files": "text/ingest/sources/files.py reads documents; export/files.py writes a folder",
    "jsonl": "core/jsonl.py reads and writes; a file format",
    "mail": "a file format; a kind of PII",
    "packing": "tokens/packing.py fills rows; align/packing.py makes micro-batches",
    "report": "align/report.py before and after PPO; text/inspect/report.py of a corpus",
    "shards": "text/shards.py of documents; tokens/shards.py of tokens",
    "status": "core/status.py computes; status.py prints",
    "terminal": "output for a terminal: a corpus; a chat",
    "types": "text/ingest/types.py and text/curate/types.py: the types of one room",
}
"""File names that occur more than once, with the meaning of each."""


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
    """Any of the phrases."""
    return re.compile(rf"\b(?:{'|'.join(PHRASES)})\b", re.IGNORECASE)


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


def test_replaced_members_do_not_exist() -> None:
    hits = [
        f"{relative(path)}:{line}: {node.name}.{name}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and node.name in MEMBERS
        for line, name in members(node)
        if name in MEMBERS[node.name]
    ]
    assert hits == []


def members(node: ast.ClassDef) -> Iterator[tuple[int, str]]:
    for item in node.body:
        if isinstance(item, ast.FunctionDef):
            yield item.lineno, item.name
        elif isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            yield item.lineno, item.target.id


def test_replaced_module_names_do_not_exist() -> None:
    hits = [relative(path) for path in sorted(PACKAGE.rglob("*.py")) if path.stem in FILES]
    assert [hit for hit in hits if not allowed(ROOT / hit, Path(hit).stem)] == []


def test_one_word_has_one_definition() -> None:
    definitions: dict[str, list[str]] = {name: [] for name in ONE_DEFINITION}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name in definitions:
                definitions[node.name].append(f"{relative(path)}:{node.lineno}")
    assert {name: places for name, places in definitions.items() if len(places) > 1} == {}


def test_file_names_that_occur_twice_are_listed_with_their_meanings() -> None:
    by_name: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        by_name.setdefault(path.stem, []).append(relative(path))
    assert {name for name, paths in by_name.items() if len(paths) > 1} <= REPEATED_FILES.keys()


def test_every_allowed_word_still_occurs() -> None:
    for path, word in ALLOWED:
        text = Path(path).stem + (ROOT / path).read_text(encoding="utf-8").lower()
        assert word in text, (path, word)
