"""Plugins in files next to a blueprint, imported by their path.

in:  the path of a Python file
out: its module, as a submodule of this one whose name encodes the absolute path

Two files of the same name never collide, and other processes of this machine can unpickle what the module defines:
the import system resolves the name through this module.
"""

import base64
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

__path__: list[str] = []  # submodules may be imported; the finder below locates them
_DIGEST = "__source_digest__"


def load(file: Path) -> ModuleType:
    """The module of a file; imported again if the file has changed. Raises what its import raises."""
    name = _name(file.resolve())
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if getattr(sys.modules.get(name), _DIGEST, digest) != digest:
        del sys.modules[name]
    module = importlib.import_module(name)
    setattr(module, _DIGEST, digest)
    return module


def path(module: str) -> Path | None:
    """The file of a module that `load` has imported, None for any other module's name."""
    prefix, _, encoded = module.rpartition(".")
    return Path(base64.urlsafe_b64decode(encoded).decode()) if prefix == __name__ else None


def _name(file: Path) -> str:
    return f"{__name__}.{base64.urlsafe_b64encode(str(file).encode()).decode()}"


class _Finder:
    """Finds the submodules of this module."""

    @staticmethod
    def find_spec(
        name: str, folders: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of the file that `name` encodes."""
        file = path(name)
        return importlib.util.spec_from_file_location(name, file) if file and file.is_file() else None


sys.meta_path.append(_Finder)
