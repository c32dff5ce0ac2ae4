"""The documented public objects of a Python source: module, classes, functions and methods.

in:  a document whose path ends in .py (read by `ast`, never run)
out: `PythonObject`s in the order of the file, each with its docstring
"""

import ast
import inspect
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from groundup.core.records import Document

PATH = re.compile(r"^(?P<module>.+)\.py(#part\d+)?$")
MAX_DOCSTRING_CHARS = 4000
ObjectKind = Literal["module", "class", "function", "method"]
_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class PythonObject:
    """A public object. name: its dotted name, e.g. textwrap.dedent; arguments: of functions and methods."""

    name: str
    kind: ObjectKind
    module: str
    docstring: str
    arguments: ast.arguments | None = None

    @property
    def declaration(self) -> str:
        """`def name(arguments)` of a function or method; "" of others."""
        name = self.name.rsplit(".", 1)[-1]
        return f"def {name}({ast.unparse(self.arguments)})" if self.arguments is not None else ""

    @property
    def first_paragraph(self) -> str:
        """The docstring up to its first empty line, in one line."""
        return " ".join(self.docstring.split("\n\n", 1)[0].split())


def python_objects(document: Document) -> Iterator[PythonObject]:
    """The objects of a source; none where the document is no Python, or can't be parsed."""
    path = PATH.match(document.path)
    tree = _parse(document.text) if path else None
    if path is None or tree is None:
        return
    module = path["module"].replace("/", ".").removesuffix(".__init__")
    yield PythonObject(module, "module", module, _docstring(tree))
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            name = f"{module}.{node.name}"
            yield PythonObject(name, "class", module, _docstring(node))
            for inner in node.body:
                yield from _function(inner, name, "method", module)
        else:
            yield from _function(node, module, "function", module)


def _function(node: ast.stmt, where: str, kind: ObjectKind, module: str) -> Iterator[PythonObject]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
        yield PythonObject(f"{where}.{node.name}", kind, module, _docstring(node), node.args)


def _docstring(node: _Documented) -> str:
    text = ast.get_docstring(node, clean=False) or ""
    return inspect.cleandoc(text.strip()[:MAX_DOCSTRING_CHARS])


def _parse(text: str) -> ast.Module | None:
    """The tree of a source; None for what is no Python, or nested beyond the parser's limits."""
    if '"""' not in text and "'''" not in text:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
