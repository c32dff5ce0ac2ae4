"""The book's colours: each has a name, a value on paper, and one on a dark screen.

Figures are drawn in the values for paper. On the page every one of them becomes a CSS variable, so that the same
drawing follows the reader's light or dark theme; that is why no two names share a value.
"""

import re

PAPER = {
    "ink": "#22262c",
    "muted": "#6a7078",
    "faint": "#d9d6cf",
    "page": "#fdfcf9",
    "card": "#f5f2ea",
    "blue": "#1f4e86",
    "orange": "#bf5a1b",
    "green": "#2e7650",
    "red": "#ab3a32",
    "violet": "#6b4a94",
    "soft-blue": "#dde8f5",
    "soft-orange": "#f9e5d4",
    "soft-green": "#dceee2",
    "soft-red": "#f7dedb",
    "soft-violet": "#e9e1f3",
}

DARK = {
    "ink": "#e7e4dd",
    "muted": "#a2a4a6",
    "faint": "#41444a",
    "page": "#17191d",
    "card": "#212429",
    "blue": "#85b4ee",
    "orange": "#eda26a",
    "green": "#7cc79d",
    "red": "#ec8a80",
    "violet": "#c0a3ea",
    "soft-blue": "#24405f",
    "soft-orange": "#573620",
    "soft-green": "#1f4a33",
    "soft-red": "#582b28",
    "soft-violet": "#40305a",
}

SHADES = ("soft-blue", "soft-orange", "soft-green", "soft-violet", "soft-red")
"""The fills of coloured pieces; shade 1 is the first."""


def themed(svg: str) -> str:
    """A drawing whose colours follow the page's theme."""
    names = {value: name for name, value in PAPER.items()}
    pattern = re.compile("|".join(names))
    return pattern.sub(lambda match: f"var(--{names[match[0]]})", svg)


def stylesheet() -> str:
    """The colours as CSS variables, light and dark; print is always light."""

    def rules(colours: dict[str, str]) -> str:
        return "".join(f"--{name}:{value};" for name, value in colours.items())

    dark = f"@media screen and (prefers-color-scheme:dark){{:root{{{rules(DARK)}}}}}"
    return f":root{{color-scheme:light dark;{rules(PAPER)}}}\n{dark}\n"
