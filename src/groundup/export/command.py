"""`groundup export`: the format, the type of the weights and the verification that a command line asks for.

in:  a checkpoint folder, a target, a format, a dtype
out: the exported folder or file, after verification where it is requested
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from groundup.core.errors import GroundupError
from groundup.export.gguf import GgufDtype, export_gguf
from groundup.export.huggingface import export_huggingface
from groundup.export.source import ExportSource
from groundup.export.verify import Verification
from groundup.export.verify_llama_cpp import load_xllamacpp, verify_llama_cpp
from groundup.export.verify_transformers import load_transformers, verify_transformers

Format = Literal["huggingface", "gguf"]


def export_model(
    folder: Path, target: Path, format: Format, dtype: GgufDtype, verify: bool, report: Callable[[str], None]
) -> None:
    """Export a checkpoint. verify: load it in the other runtime before it is published, and `report` the result.

    Raises GroundupError for a combination that does not exist, a missing package and a failed verification.
    """
    if format == "gguf":
        if target.suffix != ".gguf":
            raise GroundupError(f"{target} is not the name of a GGUF file. Try {target.with_suffix('.gguf')}")
        if verify:
            load_xllamacpp()
        check = partial(_report, partial(verify_llama_cpp, dtype=dtype), report) if verify else None
        export_gguf(folder, target, dtype, check)
        return
    if dtype == "q8_0":
        raise GroundupError("--dtype q8_0 needs --format gguf. With --format huggingface: fp32, fp16 or bf16")
    if verify:
        load_transformers()
    check = partial(_report, partial(verify_transformers, exact=dtype == "fp32"), report) if verify else None
    export_huggingface(folder, target, dtype, verify=check)


def _report(
    verification: Callable[[ExportSource, Path], Verification],
    report: Callable[[str], None],
    source: ExportSource,
    path: Path,
) -> None:
    report(str(verification(source, path)))
