"""A diagnosis for people and programs.

in:  a Diagnosis
out: tables on stdout, or JSON
"""

import json
import math
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from groundup.doctor.check import CheckResult
from groundup.doctor.doctor import Diagnosis
from groundup.doctor.machine import Machine


def print_diagnosis(found: Diagnosis, as_json: bool) -> None:
    """The machine, a line per check, and for what failed: what it means and what to do."""
    if as_json:
        print(json.dumps(_plain(found), indent=2, allow_nan=False))
        return
    console = Console(highlight=False, soft_wrap=False)
    console.print(_machine_table(found.machine))
    console.print()
    console.print(_checks_table(found.outcomes, console.width))
    failed = [one for one in found.outcomes if not one.ok]
    for one in failed:
        console.print()
        console.print(Text(f"{one.name} FAILED", style="bold red"))
        console.print(
            Text(f"  where:  {one.worst}: error {_number(one.error)}, allowed {_number(one.tolerance)}")
        )
        console.print(Text(f"  means:  {one.guards}"))
        console.print(Text(f"  do:     {one.advice}"))
    said = f"{len(failed)} of {len(found.outcomes)} checks FAILED" if failed else "All numbers are right"
    console.print()
    console.print(Text(f"{said}, {found.seconds:.0f} seconds", style="bold red" if failed else "bold green"))


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
        "chosen": machine.reason,
        "attention": machine.attention,
        "versions": ", ".join(f"{name} {version}" for name, version in machine.versions.items()),
    }
    if not machine.gpu_memory:
        del rows["GPU memory"]
    for name, value in rows.items():
        table.add_row(name, Text(value))
    return table


def _checks_table(outcomes: list[CheckResult], width: int) -> Table:
    """A line per check; the meaning gets what is left of the line."""
    rows = [
        (
            one.name,
            "ok" if one.ok else "FAILED",
            _number(one.error),
            _number(one.tolerance),
            f"{one.seconds:.1f}",
        )
        for one in outcomes
    ]
    titles = ("check", "", "error", "allowed", "s")
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    table = Table(box=None, pad_edge=False)
    for number, (title, size) in enumerate(zip(titles, widths, strict=True)):
        table.add_column(title, no_wrap=True, min_width=size, justify="right" if number > 1 else "left")
    left = max(8, width - sum(widths) - 2 * len(widths))
    table.add_column("guards against", no_wrap=True, overflow="ellipsis", max_width=left, style="dim")
    for one, (name, verdict, *numbers) in zip(outcomes, rows, strict=True):
        table.add_row(name, Text(verdict, "green" if one.ok else "bold red"), *numbers, one.guards)
    return table


def _plain(found: Diagnosis) -> dict[str, object]:
    """As JSON has it, which knows no infinite numbers: they become null."""
    checks = [asdict(one) for one in found.outcomes]
    for one in checks:
        one["error"] = one["error"] if math.isfinite(one["error"]) else None
    return {"ok": found.ok, "seconds": found.seconds, "machine": asdict(found.machine), "checks": checks}


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.1e}" if math.isfinite(value) else "differs"


def _size(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB"
