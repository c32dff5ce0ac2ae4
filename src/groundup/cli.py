"""The command line: one function per command. Data to stdout, messages to stderr, exit 2 for the user's mistake.

A command's code is imported when the command is called, so that `--help` doesn't import torch.
"""

import signal
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from groundup.command_errors import report_errors
from groundup.core.errors import GroundupError
from groundup.core.standard_streams import prepare_standard_streams
from groundup.options import (
    HERE,
    AsJson,
    BlueprintFile,
    Data,
    Device,
    Overrides,
    PolicyStage,
    RunName,
    Workspace,
    choose_model,
    load_blueprint,
    open_store,
    plugin_folder,
)

app = App(
    name="groundup",
    help="Build your own language model from scratch, end to end, on your own text.",
    help_format="plaintext",
    version_flags=["--version"],
)


@app.command
def run(
    blueprint: BlueprintFile = None,
    *,
    data: Data = [],  # noqa: B006
    set: Overrides = [],  # noqa: B006
    name: RunName = None,
    workspace: Workspace = HERE,
    until: str = "",
    ray: str = "",
    quiet: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Build a model: from raw text to an aligned assistant and a book about it. Resumes; builds nothing twice.

    Parameters
    ----------
    until
        stop after this stage, e.g. curate; the record of a complete run is kept
    ray
        address of a Ray cluster that runs ingest and curate, e.g. 10.0.0.1:6379 or auto
    quiet
        print errors only
    """
    from groundup.core.progress import Reporter
    from groundup.run import execute_on_ranks

    plan = load_blueprint(blueprint, data, [*set, f'runtime.ray = "{ray}"'] if ray else set, name)
    if (result := execute_on_ranks(plan, open_store(workspace), Reporter(quiet), until)) is not None:
        print(result)


@app.command
def plan(
    blueprint: BlueprintFile = None,
    *,
    data: Data = [],  # noqa: B006
    set: Overrides = [],  # noqa: B006
    workspace: Workspace = HERE,
    as_json: AsJson = False,
) -> None:
    """Print parameters, tokens, epochs, FLOPs and memory of pretraining, and what can't work. Builds nothing."""
    from groundup.show_plan import print_plan

    print_plan(load_blueprint(blueprint, data, set, None), open_store(workspace), as_json)


@app.command
def status(
    blueprint: BlueprintFile = None,
    *,
    data: Data = [],  # noqa: B006
    set: Overrides = [],  # noqa: B006
    name: RunName = None,
    workspace: Workspace = HERE,
    as_json: AsJson = False,
) -> None:
    """Report for each stage whether it is up to date or must be built, and which field differs. Builds nothing."""
    from groundup.presets import blueprint_table
    from groundup.show import print_status
    from groundup.status import pipeline_status

    table, origin = blueprint_table(blueprint, data, name)
    report = pipeline_status(open_store(workspace), table, set, origin, plugin_folder(blueprint))
    print_status(report.reports, report.problems, as_json)


@app.command
def clean(
    *,
    yes: Annotated[bool, Parameter(negative=())] = False,
    workspace: Workspace = HERE,
    as_json: AsJson = False,
) -> None:
    """List files that no run refers to: artifacts, interrupted builds, locks, caches. Deletes them only with --yes.

    Parameters
    ----------
    yes
        delete the listed files
    """
    from groundup.core.clean import delete_unused, find_unused
    from groundup.show import print_unused

    store = open_store(workspace)
    print_unused(delete_unused(store) if yes else find_unused(store), store.root, yes, as_json)


@app.command
def show(
    what: str | None = None,
    stage: str | None = None,
    *,
    workspace: Workspace = HERE,
    as_json: AsJson = False,
) -> None:
    """Show the metrics of a run, one of its stages, or every value of a blueprint.

    Parameters
    ----------
    what
        name of a run (default: the newest), or a blueprint file
    stage
        one of the run's stages, e.g. pretrain; of a fine-tuned model also examples with their loss mask
    """
    from groundup import show as views

    if what and what.endswith(".toml"):
        from groundup.pipeline import resolved

        print(resolved(load_blueprint(Path(what), [], [], None)), end="")
        return
    store = open_store(workspace)
    run_name = what or views.newest_run(store)
    stages = store.run(run_name, newest=True)
    if stage is None:
        views.print_run(run_name, stages, as_json)
    else:
        views.print_stage(views.pick(stages, stage, run_name), as_json)


@app.command
def inspect(
    what: str | None = None,
    *,
    document: str = "",
    search: str = "",
    data: str = "",
    limit: int = 20,
    page: Path | None = None,
    workspace: Workspace = HERE,
    as_json: AsJson = False,
) -> None:
    """Show which documents were kept, dropped and changed at every curation step, and why; or alignment data.

    Parameters
    ----------
    what
        name of a run (default: the newest), or a blueprint file, for the run of its name
    document
        show every event of the document whose id starts with this
    search
        find documents with these words in their path or text
    data
        show samples of this [[data]] table of the run (or of `all`), what is in the loss in colour, and rejected rows
    limit
        most documents or samples that are listed
    page
        write an HTML report to this file
    """
    from groundup.show import newest_run
    from groundup.text.inspect.command import InspectQuery, run_inspect
    from groundup.text.inspect.corpus import Corpus

    store = open_store(workspace)
    if what and what.endswith(".toml"):
        what = load_blueprint(Path(what), [], [], None).name
    name = what or newest_run(store)
    stages = store.run(name, newest=True)
    if data:
        from groundup.align.data.inspect_samples import show_samples

        show_samples(stages, data, limit, as_json)
        return
    corpus = Corpus(stages["ingest"].path, stages["curate"].path if "curate" in stages else None)
    run_inspect(corpus, name, InspectQuery(document, search, limit, page, as_json))


@app.command
def diff(a: str, b: str, *, workspace: Workspace = HERE, as_json: AsJson = False) -> None:
    """List the recipe fields and metrics in which two runs differ, stage by stage.

    Parameters
    ----------
    a
        name of a run
    b
        name of another run
    """
    from groundup.show import print_difference

    store = open_store(workspace)
    print_difference(store.run(a), store.run(b), as_json)


@app.command
def chat(
    model: str | None = None,
    *,
    prompt: Annotated[str | None, Parameter(name=["--prompt", "-p"])] = None,
    system: str = "",
    stage: PolicyStage = None,
    temperature: float = 0.0,
    top_p: float = 1.0,
    max_tokens: int = 200,
    seed: int = 0,
    sources: bool = True,
    device: Device = "auto",
    workspace: Workspace = HERE,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """Chat with a model: at the terminal, or one answer per line of stdin.

    Parameters
    ----------
    model
        name of a run (default: the newest), or a checkpoint folder
    prompt
        answer this one question and exit
    system
        system prompt, before the conversation
    temperature
        sampling temperature; 0 = greedy decoding
    top_p
        nucleus sampling: smallest set of tokens with cumulative probability >= top_p
    max_tokens
        longest answer in tokens
    seed
        seed of the sampling
    sources
        passages of the corpus in the prompt, and the answer's source, if the model was fine-tuned with passages
    as_json
        print each answer as one JSON object on one line: text, finish_reason, token counts and source
    """
    from groundup.core.runtime import Runtime
    from groundup.serve.command import chat_with
    from groundup.serve.conversation import ChatOptions

    options = ChatOptions(temperature, top_p, max_tokens, seed, system)
    chosen = choose_model(model, stage, workspace)
    chat_with(chosen, options, Runtime(device=device, compile="off"), prompt, as_json, sources)


@app.command
def export(
    model: str,
    target: Path,
    *,
    format: Literal["huggingface", "gguf"] = "huggingface",
    dtype: Literal["fp32", "fp16", "bf16", "q8_0"] = "fp32",
    verify: Annotated[bool, Parameter(negative=())] = False,
    stage: PolicyStage = None,
    workspace: Workspace = HERE,
) -> None:
    """Export a model for other runtimes: a Hugging Face folder (transformers, vLLM) or a GGUF file (llama.cpp).

    Parameters
    ----------
    model
        name of a run, or a checkpoint folder
    target
        the new folder, or the new .gguf file
    format
        huggingface (config.json and safetensors) or gguf
    dtype
        type of the weights; q8_0 (8-bit) only in GGUF
    verify
        load the export in transformers or llama.cpp (xllamacpp) and compare log-probabilities, ids and texts
    """
    from groundup.export.command import export_model

    folder = choose_model(model, stage, workspace).folder
    export_model(folder, target, format, dtype, verify, partial(print, file=sys.stderr))
    print(target)


@app.command(name="import")
def import_(
    folder: Path, target: Path, *, control_tokens: Annotated[bool, Parameter(negative=())] = False
) -> None:
    """Convert a published model (config.json, safetensors) to a checkpoint folder to train from.

    Parameters
    ----------
    folder
        folder of the published model
    target
        the new folder
    control_tokens
        add this project's control tokens to its vocabulary: needed to train it further or to chat with it
    """
    from groundup.export.hf_import import import_huggingface

    import_huggingface(folder, target, control_tokens)
    print(target)


@app.command
def init(
    file: Path = Path("blueprint.toml"),
    *,
    preset: str = "stdlib",
    data: Data = [],  # noqa: B006
) -> None:
    """Write a complete, commented blueprint to start from.

    Parameters
    ----------
    file
        file to write
    preset
        preset to write
    """
    from groundup.core.atomic_io import write_text
    from groundup.core.blueprint import commented_toml

    if file.exists():
        raise GroundupError(f"{file} exists already. Choose another name: groundup init other.toml")
    write_text(file, commented_toml(load_blueprint(None, data, [], None, preset)))
    print(file)
    print(f"Edit it, then: groundup run {file}", file=sys.stderr)


@app.command
def doctor(
    *,
    device: Device = "auto",
    compile: Literal["auto", "on", "off"] = "auto",
    workspace: Workspace = HERE,
    as_json: AsJson = False,
) -> None:
    """Measure this machine and check this package's numerics on it (half a minute). Exit code 1 if a check fails.

    Parameters
    ----------
    compile
        whether to compile kernels with torch.compile
    """
    from groundup.core.progress import Reporter
    from groundup.core.runtime import Runtime
    from groundup.doctor.doctor import diagnose
    from groundup.doctor.print_diagnosis import print_diagnosis

    diagnosis = diagnose(Runtime(device=device, compile=compile), workspace, Reporter(quiet=as_json))
    print_diagnosis(diagnosis, as_json)
    sys.exit(int(not diagnosis.ok))


@app.command
def plugins(*, as_json: AsJson = False) -> None:
    """List every registry with its plugins, their fields and defaults."""
    from groundup.show import print_plugins

    print_plugins(as_json)


def main(argv: list[str] | None = None) -> None:
    """Entry point: runs a command and turns mistakes into one message and exit code 2."""
    signal.signal(signal.SIGTERM, _terminate)
    prepare_standard_streams()
    with report_errors(resumes=(sys.argv[1:] if argv is None else argv)[:1] == ["run"]):
        app(argv, exit_on_error=False, print_error=False)


def _terminate(number: int, _frame: Any) -> None:
    """Turns SIGTERM into SystemExit, so that open files are closed."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main()
