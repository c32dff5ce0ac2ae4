"""Reading order, import order and data flow are one order, and no folder has an import cycle among its children."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import groundup

ROOT = Path(groundup.__file__).parent
PACKAGES = ["core", "text", "tokens", "model", "parallel", "train", "infer", "evaluate",
            "align", "export", "trace", "plan", "book", "serve", "doctor"]  # fmt: skip
TOP = [
    "presets",
    "pipeline",
    "feasibility",
    "show_plan",
    "run",
    "show",
    "status",
    "options",
    "command_errors",
    "cli",
]
WITHOUT_TORCH = {"core", "text", "tokens", "book", "presets"}
REGISTRY_FOLDERS = {
    "sources",
    "steps",
    "architectures",
    "optimizers",
    "backends",
    "tasks",
    "verifiers",
    "methods",
    "engines",
    "datasets",
}


def imports(path: Path) -> list[tuple[int, str]]:
    """(line, module) of every import in a file, those inside functions too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write imports absolutely"
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "groundup" else [module]
            found += [(node.lineno, name) for name in names]
    return found


def floor(module: str) -> int:
    name = module.split(".")[1] if "." in module else ""
    order = PACKAGES + TOP
    return order.index(name) if name in order else -1


def offences(root: Path) -> list[str]:
    found = []
    for path in sorted(root.rglob("*.py")):
        here = "groundup." + ".".join(path.relative_to(root).with_suffix("").parts)
        for line, module in imports(path):
            if module.startswith("groundup") and floor(module) > floor(here) >= 0:
                found.append(f"{path.relative_to(root)}:{line} imports {module}")
    return found


def test_no_file_imports_downstream() -> None:
    assert offences(ROOT) == []


def test_a_planted_upward_import_is_found(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "curate.py").write_text("def f():\n    import groundup.tokens.bpe\n")
    assert offences(tmp_path) == ["text/curate.py:2 imports groundup.tokens.bpe"]


def cycles(root: Path) -> list[list[str]]:
    """Import cycles among the children (files and folders) of each folder; a folder counts as one child."""
    known = {
        "groundup." + ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for path in root.rglob("*.py")
    }
    edges: dict[Path, dict[str, set[str]]] = {}
    for path in sorted(root.rglob("*.py")):
        for target in imported_files(path, known):
            parts, others = path.relative_to(root).parts, target.relative_to(root).parts
            depth = next((i for i, (a, b) in enumerate(zip(parts, others, strict=False)) if a != b), None)
            if depth:  # the order of the packages themselves has a test of its own
                folder = root.joinpath(*parts[:depth])
                edges.setdefault(folder, {}).setdefault(parts[depth], set()).add(others[depth])
    found = []
    for folder, graph in sorted(edges.items()):
        try:
            tuple(TopologicalSorter(graph).static_order())
        except CycleError as error:
            found.append([str(folder.relative_to(root)), *error.args[1]])
    return found


def imported_files(path: Path, known: dict[str, Path]) -> list[Path]:
    """The package's own files that `path` imports: `from groundup.a import b` is a module `b` or a name of `a`."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [known[alias.name] for alias in node.names if alias.name in known]
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                target = known.get(f"{node.module}.{alias.name}") or known.get(node.module)
                found += [] if target is None else [target]
    return found


def test_no_folder_has_an_import_cycle_among_its_children() -> None:
    assert cycles(ROOT) == []


def test_a_planted_cycle_is_found(tmp_path: Path) -> None:
    for folder in ("text", "text/steps", "text/dedup"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text("")
    (tmp_path / "text/steps/rules.py").write_text("from groundup.text.dedup import pairs\n")
    (tmp_path / "text/dedup/pairs.py").write_text("from groundup.text.steps.base import Rule\n")
    (tmp_path / "text/steps/base.py").write_text("Rule = int\n")
    (found,) = cycles(tmp_path)
    assert found[0] == "text" and set(found[1:]) == {"steps", "dedup"}


def test_every_package_has_its_place_in_the_order() -> None:
    packages = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()}
    modules = {path.stem for path in ROOT.glob("*.py")} - {"__init__"}
    assert packages <= set(PACKAGES)
    assert modules <= set(TOP)


def test_the_light_packages_import_no_torch() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sorted(ROOT.rglob("*.py"))
        if path.relative_to(ROOT).parts[0].removesuffix(".py") in WITHOUT_TORCH
        for line, module in imports(path)
        if module.split(".")[0] == "torch"
    ]
    assert found == []


def test_plugins_of_a_registry_do_not_import_one_another() -> None:
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        folder = path.parent
        if folder.name not in REGISTRY_FOLDERS or path.name.startswith("_"):
            continue
        others = [other.stem for other in folder.glob("*.py") if not other.name.startswith("_")]
        dotted = ".".join(folder.relative_to(ROOT).parts)
        siblings = {f"groundup.{dotted}.{other}" for other in others}
        found += [f"{path.relative_to(ROOT)}:{line}" for line, module in imports(path) if module in siblings]
    assert found == []


def test_nothing_loads_pickles_or_runs_text_as_code() -> None:
    forbidden = {"pickle", "eval", "exec", "shell", "trust_remote_code"}
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = node.func.id if isinstance(node.func, ast.Name) else ""
                words = {name} | {keyword.arg for keyword in node.keywords}
                found += [f"{path.relative_to(ROOT)}:{node.lineno}" for _ in words & forbidden]
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("torch.load", "torch.save"):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []


def test_files_and_functions_stay_readable() -> None:
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if text.count("\n") > 400:
            found.append(f"{path.relative_to(ROOT)} has over 400 lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= 60:
                found.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name} has over 60 lines")
    assert found == []
