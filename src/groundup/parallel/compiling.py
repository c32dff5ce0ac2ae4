"""Compilation: whether kernels can be compiled here, and the folder that caches them.

in:  a Runtime
out: whether kernels can be compiled here, and why not; a folder in which they outlast a restart
"""

import hashlib
import os
import shutil
import sysconfig
from pathlib import Path

import torch
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from groundup.core.environment import cache_folder, cpu_name
from groundup.core.errors import GroundupError
from groundup.core.runtime import Runtime

CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
"""PyTorch's environment variable of the cache of graphs and kernels."""


def can_compile(runtime: Runtime, cuda: bool) -> tuple[bool, str]:
    """Whether to compile, and the reason as text. Raises GroundupError where compile = "on" isn't possible."""
    if runtime.compile == "off":
        return False, 'eager, since runtime.compile = "off"'
    if runtime.layout != "auto" and runtime.layout.pipeline > 1 and runtime.layout.schedule == "zero_bubble":
        # A compiled layer differentiates its inputs and weights at once: the second half would do all of it again.
        if runtime.compile == "on":
            raise GroundupError(
                "runtime.compile = \"on\", but the halves of a zero-bubble pipeline's backward passes can't "
                "be compiled. "
                'Use compile = "auto", which trains without, or schedule = "interleaved"'
            )
        return False, "eager, since a zero-bubble pipeline's backward passes can't be compiled in halves"
    missing = _missing_compiler(cuda)
    if missing and runtime.compile == "on":
        raise GroundupError(f'runtime.compile = "on", but {missing}. Install it, or use "auto"')
    if missing:
        return False, f"eager, since {missing} (training is about half as fast)"
    return True, "compiled"


def set_kernel_cache() -> Path | None:
    """Set the folder of compiled kernels to the user's cache folder, so that the next run starts warm.

    By default they are in the system's temporary folder, which many systems empty. A TORCHINDUCTOR_CACHE_DIR that the
    user has set is kept; importing `torch._dynamo` sets it to PyTorch's default, which is not the user's choice.

    Returns the folder, or None where it cannot be made, written to, or hold code that is run (a noexec mount): then
    PyTorch's default stays.
    """
    if os.environ.get(CACHE_VARIABLE, default_cache_dir()) != default_cache_dir():
        return Path(os.environ[CACHE_VARIABLE])
    folder = cache_folder() / "kernels"
    # Kernels for the CPU hold instructions of this very processor, and a home folder may serve several machines.
    machine = f"{cpu_name()} {torch.backends.cpu.get_cpu_capability()}"
    folder /= hashlib.sha256(machine.encode()).hexdigest()[:12]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(folder, os.W_OK) or os.statvfs(folder).f_flag & os.ST_NOEXEC:
        return None
    os.environ[CACHE_VARIABLE] = str(folder)
    return folder


def _missing_compiler(cuda: bool) -> str:
    """What is missing for compiling; "" where nothing is."""
    compiler = os.environ.get("CXX", "g++")
    if not cuda and not (shutil.which(compiler) or shutil.which("clang++")):
        return "there is no C++ compiler (g++)"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        return "Python's headers (Python.h, in the package python3-dev) are missing"
    return ""
