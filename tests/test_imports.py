"""The tree reads like the river: a file imports from its own package and from packages upstream of it."""

import ast
from pathlib import Path

import groundup

ROOT = Path(groundup.__file__).parent
RIVER = ["core", "text", "tokens", "model", "parallel", "train", "generate", "evaluate",
         "align", "export", "doctor", "trace", "plan", "book", "serve"]  # fmt: skip
TOP = ["presets", "pipeline", "run", "show", "cli"]
WITHOUT_TORCH = {"core", "text", "tokens", "book", "presets"}
SLOT_FOLDERS = {"sources", "steps", "architectures", "optimizers", "backends", "tasks", "methods", "engines"}


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
    order = RIVER + TOP
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
    assert offences(tmp_path) == ["text/curate/curate.py:2 imports groundup.tokens.bpe"]


def test_every_package_has_its_place_in_the_river() -> None:
    packages = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()}
    modules = {path.stem for path in ROOT.glob("*.py")} - {"__init__"}
    assert packages <= set(RIVER)
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


def test_parts_of_a_slot_do_not_import_one_another() -> None:
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        folder = path.parent
        if folder.name not in SLOT_FOLDERS or path.name.startswith("_"):
            continue
        others = [other.stem for other in folder.glob("*.py") if not other.name.startswith("_")]
        siblings = {f"groundup.{folder.parent.name}.{folder.name}.{other}" for other in others}
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
