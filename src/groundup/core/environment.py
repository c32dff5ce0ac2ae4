"""The environment of a build: interpreter, libraries, machine, commit. Recorded in manifests, never fingerprinted."""

import os
import platform
import subprocess
import tempfile
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

LIBRARIES = ("groundup", "torch", "numpy", "pyarrow", "tokenizers", "gigatoken", "safetensors", "typst")


@cache
def environment() -> dict[str, Any]:
    """Versions, hardware and commit as plain JSON. Never fails: an entry that can't be determined is omitted."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "libraries": {name: version for name in LIBRARIES if (version := _version(name))},
        "commit": _commit(),
    }


def cpu_name() -> str:
    """The processor's model name as the operating system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def cache_folder() -> Path:
    """The user's cache folder of this program; a user without a home has one in the temporary folder."""
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"groundup-{os.getuid()}"
    return base / "groundup"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    package = Path(__file__).resolve().parent
    command = ["git", "-C", str(package), "rev-parse", "HEAD"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() or None if result.returncode == 0 else None
