"""Curves, funnel, coloured text."""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from fake_run import TEXT, make_run

from groundup.book.coloured_text import coloured_loss_mask, coloured_tokens
from groundup.book.figures import Bar, Panel, Series, bars_svg, curves_svg, emblem_svg, series
from groundup.book.funnel import Level, Split, funnel_svg
from groundup.tokens.tokenizer import Tokenizer


def test_a_curve_is_the_same_every_time_and_well_formed() -> None:
    panel = Panel("loss", (Series(tuple(range(900)), tuple(1 / (1 + n) for n in range(900)), kind="smooth"),))
    first = curves_svg([panel, panel, panel], 2, "step")
    assert first == curves_svg([panel, panel, panel], 2, "step")
    ElementTree.fromstring(first)
    assert len(first) < 60_000


def test_non_finite_values_are_left_out_of_a_curve() -> None:
    log: list[dict[str, Any]] = [
        {"step": 1, "loss": 2.0},
        {"step": 2, "loss": "nan"},
        {"step": 3},
        {"step": 4, "loss": 1.0},
    ]
    assert series(log, "loss").x == (1, 4)


def test_an_empty_or_flat_run_still_has_an_emblem() -> None:
    for losses in ([], [1.0], [1.0, 1.0]):
        emblem = emblem_svg(losses)
        assert len(ElementTree.fromstring(emblem)) == 17
        assert "nan" not in emblem


def test_a_bars_width_is_its_value() -> None:
    picture = bars_svg([Bar("half", 0.5), Bar("all", 1.0, (0.9, 1.0))], "share", 1.0, (0.5, "chance"))
    widths = [float(value) for value in re.findall(r'<rect [^>]*width="([\d.]+)"', picture)]
    assert widths == [190.0, 380.0]


def test_a_funnels_bars_narrow_by_the_rejected_fraction() -> None:
    picture = funnel_svg(
        (Level("documents", 100, 50, ("50 dropped",)),), (Split("tokens", (("a", 75), ("b", 25))),)
    )
    widths = [float(value) for value in re.findall(r'<rect [^>]*width="([\d.]+)"', picture)]
    assert widths == [186.0, 186.0, 139.5, 46.5]


def test_an_empty_funnel_has_its_levels_with_zero() -> None:
    picture = funnel_svg((Level("files", 0, 0),), (Split("tokens", (("a", 0), ("b", 0))),))
    texts = [element.text for element in ElementTree.fromstring(picture) if element.text]
    assert {"0 files", "0 tokens", "0 a", "0 b"} <= set(texts)
    assert "nan" not in picture


def test_coloured_tokens_join_to_the_text(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(make_run(tmp_path)["tokenizer"].path)
    for text in (TEXT, "naïve 日本 🎉 שלום", "<|user|> <|end_of_turn|>", ""):
        assert "".join(span.text for span in coloured_tokens(text, tokenizer)) == text


def test_only_tokens_in_the_loss_are_coloured() -> None:
    example = [
        ["<|user|>What is it?<|end_of_turn|><|assistant|>", False],
        ["A wrapper.<|end_of_turn|>", True],
    ]
    assert [span.shade for span in coloured_loss_mask(example)] == [0, 1]
    assert coloured_loss_mask({"no": "example"}) == ()
