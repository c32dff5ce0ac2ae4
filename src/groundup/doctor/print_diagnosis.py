"""Prints a diagnosis as tables or as JSON.

in:  a `Diagnosis`
out: text on stdout
"""

import math
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from groundup.core.standard_streams import print_json
from groundup.doctor.check import CheckResult
from groundup.doctor.doctor import Diagnosis
from groundup.doctor.machine import Machine


def print_diagnosis(diagnosis: Diagnosis, as_json: bool) -> None:
    """Print the machine, one line per check, and for each failure its meaning and advice."""
    if as_json:
        print_json(_plain(diagnosis))
        return
    console = Console(highlight=False, soft_wrap=False)
    console.print(_machine_table(diagnosis.machine))
    console.print()
    console.print(_checks_table(diagnosis.results, console.width))
    failed = [result for result in diagnosis.results if not result.ok]
    for result in failed:
        console.print()
        console.print(Text(f"{result.name} FAILED", style="bold red"))
        console.print(
            Text(
                f"  where:  {result.worst}: error {_number(result.error)}, allowed {_number(result.tolerance)}"
            )
        )
        console.print(Text(f"  means:  {result.guards}"))
        console.print(Text(f"  do:     {result.advice}"))
    summary = f"{len(failed)} of {len(diagnosis.results)} checks FAILED" if failed else "All checks passed"
    console.print()
    console.print(
        Text(f"{summary}, {diagnosis.seconds:.0f} seconds", style="bold red" if failed else "bold green")
    )


def _machine_table(machine: Machine) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    rates = ", ".join(f"{name} {rate / 1e12:,.2f}" for name, rate in machine.matmul_flops.items())
    rows = {
        "device": f"{machine.device}, {machine.cores} CPU threads",
        "memory": f"{_size(machine.memory)}, {_size(machine.memory_free)} free",
        "GPU memory": f"{_size(machine.gpu_memory)}, {_size(machine.gpu_memory_free)} free",
        "disk": f"{_size(machine.disk_free)} free for the workspace",
        "products": f"{rates} TFLOP/s",
        "bandwidth": f"{machine.bandwidth / 1e9:,.1f} GB/s, read and written",
        "selected": machine.reason,
        "attention": machine.attention,
        "versions": ", ".join(f"{name} {version}" for name, version in machine.versions.items()),
    }
    if not machine.gpu_memory:
        del rows["GPU memory"]
    for name, value in rows.items():
        table.add_row(name, Text(value))
    return table


def _checks_table(results: list[CheckResult], width: int) -> Table:
    """One line per check; the last column is cut to the terminal's width."""
    rows = [
        (
            result.name,
            "ok" if result.ok else "FAILED",
            _number(result.error),
            _number(result.tolerance),
            f"{result.seconds:.1f}",
        )
        for result in results
    ]
    titles = ("check", "", "error", "allowed", "s")
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    table = Table(box=None, pad_edge=False)
    for number, (title, size) in enumerate(zip(titles, widths, strict=True)):
        table.add_column(title, no_wrap=True, min_width=size, justify="right" if number > 1 else "left")
    left = max(8, width - sum(widths) - 2 * len(widths))
    table.add_column("guards against", no_wrap=True, overflow="ellipsis", max_width=left, style="dim")
    for result, (name, status, *numbers) in zip(results, rows, strict=True):
        table.add_row(name, Text(status, "green" if result.ok else "bold red"), *numbers, result.guards)
    return table


def _plain(diagnosis: Diagnosis) -> dict[str, object]:
    """The diagnosis as JSON values; infinite errors become null."""
    checks = [asdict(result) for result in diagnosis.results]
    for result in checks:
        result["error"] = result["error"] if math.isfinite(result["error"]) else None
    return {
        "ok": diagnosis.ok,
        "seconds": diagnosis.seconds,
        "machine": asdict(diagnosis.machine),
        "checks": checks,
    }


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.1e}" if math.isfinite(value) else "differs"


def _size(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB"
