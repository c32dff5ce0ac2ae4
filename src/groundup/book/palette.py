"""The book's colours: a name with one value for paper and one for dark screens.

Figures use the paper values. In HTML each value is replaced by a CSS variable, so that figures follow the reader's
light or dark theme; therefore no two names may share a value.
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
"""Background colours of `ColouredSpan`; shade 1 is the first."""


def themed(svg: str) -> str:
    """An SVG whose colours are CSS variables of the page's theme."""
    names = {value: name for name, value in PAPER.items()}
    pattern = re.compile("|".join(names))
    return pattern.sub(lambda match: f"var(--{names[match[0]]})", svg)


def stylesheet() -> str:
    """The colours as CSS variables, light and dark; print is always light."""

    def rules(colours: dict[str, str]) -> str:
        return "".join(f"--{name}:{value};" for name, value in colours.items())

    dark = f"@media screen and (prefers-color-scheme:dark){{:root{{{rules(DARK)}}}}}"
    return f":root{{color-scheme:light dark;{rules(PAPER)}}}\n{dark}\n"
