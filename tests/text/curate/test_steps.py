"""The steps that decide by rules: what they let pass, what they cut, and what they survive."""

import time
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from groundup.core.registry import Plugin
from groundup.text.batch import DocumentBatch
from groundup.text.curate.steps.c4 import C4
from groundup.text.curate.steps.code import Code
from groundup.text.curate.steps.fineweb import FineWeb
from groundup.text.curate.steps.gopher_quality import GopherQuality
from groundup.text.curate.steps.gopher_repetition import GopherRepetition
from groundup.text.curate.steps.length import Length
from groundup.text.curate.steps.repeated_lines import RepeatedLines
from groundup.text.curate.types import HasRules, NeedsClassifier, Rule, apply_rules
from groundup.text.documents import DOCUMENT_SCHEMA

RULES = (Length(), GopherQuality(), GopherRepetition(), C4(), FineWeb(), Code(), RepeatedLines())
ENGLISH = (
    "The keeper of the lighthouse went down to the water that evening. He had seen a boat with nobody in it. "
    "It drifted past the rocks and into the bay! Was there someone to be found? Nobody could say. "
    "By morning the sea was calm, and what was left of the night lay on the sand."
)
CHINESE = (
    "那天傍晚，灯塔看守人走到了水边。他看见一条空荡荡的小船。它漂过礁石，进了海湾！会有人在那里吗？谁也说不清。"
    "到了早晨，海面平静下来，夜里留下的东西都躺在沙滩上。村里的孩子们最先跑来，他们捡起湿透的绳子和一只旧鞋，"
    "围着老人问个不停。"
)
JAPANESE = (
    "その夕方、灯台守は水辺へ下りて行った。彼は誰も乗っていない小舟を見た。舟は岩を過ぎて湾に入った！"
    "誰かがそこにいたのだろうか？誰にも分からなかった。朝には海は静かになり、夜の名残は砂の上に横たわっていた。"
    "村の子供たちが最初に駆けつけて、濡れた縄と古い靴を拾い上げた。"
)
THAI = (
    "เย็นวันนั้นคนเฝ้าประภาคารเดินลงไปที่ริมน้ำ เขาเห็นเรือลำหนึ่งซึ่งไม่มีใครอยู่บนเรือ มันลอยผ่านโขดหินเข้าไปในอ่าว "
    "จะมีใครอยู่ที่นั่นหรือไม่ ไม่มีใครบอกได้ พอรุ่งเช้าทะเลก็สงบลง และสิ่งที่เหลือจากเมื่อคืนก็นอนอยู่บนผืนทราย "
    "เด็กในหมู่บ้านวิ่งมาถึงก่อนใคร พวกเขาเก็บเชือกเปียกกับรองเท้าเก่าข้างหนึ่งแล้วถามชายชราไม่หยุด"
)


def batch(*texts: str, path: str = "a.txt", language: str = "") -> DocumentBatch:
    blank = dict.fromkeys(DOCUMENT_SCHEMA.names, "") | {"path": path, "language": language}
    return DocumentBatch(pa.Table.from_pylist([blank | {"text": text} for text in texts], DOCUMENT_SCHEMA))


def left(step: Any, text: str, **known: str) -> str | None:
    """The text that a step leaves; None if it drops the document."""
    fates = step.apply(batch(text, **known))
    if fates.reason[0] is None:
        return text
    found: str | None = fates.text[0] if fates.text is not None else None
    return found


@pytest.mark.parametrize("step", RULES, ids=lambda step: type(step).__name__)
@pytest.mark.parametrize("text", [ENGLISH, CHINESE, JAPANESE, THAI], ids=["en", "zh", "ja", "th"])
def test_good_prose_passes_every_rule_in_every_script(step: Any, text: str) -> None:
    assert left(step, text) == text


def test_first_broken_rule_is_the_reason_and_nan_breaks_none() -> None:
    rules = Rule("low", "a", at_least=2), Rule("high", "b", at_most=5)
    metrics = {"a": np.array([1, 3, 3, np.nan]), "b": np.array([9, 9, 5, np.nan])}
    fates = apply_rules(metrics, rules, 4)
    assert fates.reason == ["low", "high", None, None]
    assert (fates.value, fates.threshold) == ([1, 9, None, None], [2, 5, None, None])
    assert fates.metrics is metrics


def test_words_of_unspaced_scripts_are_counted_by_character() -> None:
    rule = Length(min_chars=0, min_words=5)
    assert rule.apply(batch("我们在海边看见灯塔。", "only four words here")).reason == [None, "too_few_words"]


def test_bounds_that_nothing_can_pass_are_refused() -> None:
    with pytest.raises(ValidationError, match="min_chars = 10 is above max_chars = 5"):
        Length(min_chars=10, max_chars=5)


def test_stop_words_are_asked_of_their_language_only() -> None:
    german = "Der Wärter ging am Abend hinunter ans Wasser und sah dort ein leeres Boot. " * 5
    assert GopherQuality().apply(batch(german)).reason == ["too_few_stop_words"]
    assert GopherQuality().apply(batch(german, language="und")).reason == ["too_few_stop_words"]
    assert GopherQuality().apply(batch(german, language="en")).reason == ["too_few_stop_words"]
    fates = GopherQuality().apply(batch(german, language="de"))
    assert fates.reason == [None] and np.isnan(fates.metrics["stop_words"]).all()
    own = GopherQuality(language="de", stop_words=("der", "und", "am", "ein"))
    assert own.apply(batch(german, language="de")).metrics["stop_words"].tolist() == [3]


def test_rules_for_prose_pass_over_code_and_rules_for_code_over_prose() -> None:
    body = "\n".join(f"def number_{n}(self, other):\n    return NotImplemented" for n in range(40))
    assert GopherRepetition().apply(batch(body)).reason == ["repeated_lines"]
    for step in (GopherQuality(), GopherRepetition(), C4(), FineWeb(), RepeatedLines()):
        fates = step.apply(batch(body, path="a.py"))
        assert fates.reason == [None]
        assert all(np.isnan(values).all() for values in fates.metrics.values())
    assert Code().apply(batch("x = 1\n" * 99, path="a.py")).reason == ["repeated_line_chars"]
    assert Code().apply(batch("x = 1\n" * 99)).reason == [None]


def test_a_sentence_that_says_two_words_twice_is_kept() -> None:
    sentence = "He who laughs last laughs best, and he who laughs loudest laughs alone."
    assert GopherRepetition().apply(batch(sentence)).reason == [None]
    assert GopherRepetition(min_words=0, max_2gram=0.1).apply(batch(sentence)).reason == ["frequent_2gram"]


def test_chinese_and_thai_repeat_as_english_does() -> None:
    for text in (ENGLISH, CHINESE, THAI):
        assert GopherRepetition().apply(batch(text, text + text)).reason == [None, "repeated_5gram"]


def test_c4_keeps_sentences_and_says_what_it_cut() -> None:
    page = (
        f"Home | News\n{ENGLISH}\nEnable JavaScript to see this.\nWe use cookies on this page.\nRead more..."
    )
    fates = C4().apply(batch(page))
    assert fates.text == [ENGLISH] and fates.reason == ["lines_removed"] and fates.value == [0.8]
    assert fates.metrics["sentences"].tolist() == [6]


def test_c4_takes_out_citation_marks() -> None:
    assert left(C4(), ENGLISH.replace(".", ".[12]")) == ENGLISH
    assert C4().apply(batch(ENGLISH.replace(".", ".[edit]"))).reason == ["citations_removed"]
    assert left(C4(citations=False), ENGLISH + " [12] is it.") == ENGLISH + " [12] is it."


def test_c4_drops_pages_with_filler_or_brackets() -> None:
    pages = (
        f"{ENGLISH}\nLorem ipsum dolor sit amet.",
        f"{ENGLISH}\nThen comes if (a) {{ b }}.",
        "Too short. It is.",
    )
    assert C4().apply(batch(*pages)).reason == ["lorem_ipsum", "curly_bracket", "too_few_sentences"]
    assert left(C4(min_sentences=0), "No sentence") is None


def test_c4_without_end_marks_keeps_headings() -> None:
    page = f"The keeper and the sea\n{ENGLISH}\nNo"
    assert left(C4(end_marks=()), page) == f"The keeper and the sea\n{ENGLISH}"


def test_fineweb_drops_lists_and_menus() -> None:
    menu = "\n".join(f"Entry number {n}" for n in range(20))
    lines = "\n".join(f"{ENGLISH}{n}." for n in range(3))
    short = "\n".join(f"It is {n}." for n in range(20))
    ended = "\n".join(f"It is a very long line indeed, number {n}." for n in range(20))
    assert FineWeb().apply(batch(menu, lines, short)).reason == [
        "too_few_end_marks",
        None,
        "too_many_short_lines",
    ]
    assert FineWeb().apply(batch(f"{ended}\n" * 2)).reason == ["repeated_line_chars"]
    assert FineWeb(max_line_ends=0.1).apply(batch(ended)).reason == ["too_many_line_ends"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("# Code generated by protoc. DO NOT EDIT.\nx = 1\n", "generated"),
        ("\n" * 6 + "x = 'do not edit'\n", None),
        ("x = [" + "1, " * 400 + "]\n", "lines_too_long"),
        ("\n".join("x" * 120 for _ in range(9)), "mean_line_too_long"),
        ("[](){};;==++--" * 5, "too_few_alphanumerics"),
        ("key = '''\n" + ("QUJD" * 15 + "\n") * 9 + "'''\n", "encoded_data"),
        ("data = b'\n" + "\n".join(["\\x00\\xff\\x7f" * 9] * 9), "encoded_data"),
        ("\n".join(f"name_{n} = call(other, {n}) - {n * n}" for n in range(99)), None),
    ],
)
def test_code_that_nobody_wrote_goes(text: str, reason: str | None) -> None:
    assert Code().apply(batch(text, path="a.py")).reason == [reason]


def test_data_files_may_be_short_only() -> None:
    rows = "\n".join(f'{{"number": {n}, "square": {n * n}}},' for n in range(200))
    assert Code().apply(batch(rows, path="a.json")).reason == ["too_much_data"]
    assert Code().apply(batch(rows[:2000], path="a.json")).reason == [None]
    assert Code().apply(batch(rows, path="a.js")).reason == [None]


def test_lines_said_again_are_cut_and_the_first_stays() -> None:
    footer = "Copyright by the keepers of the light, all rights reserved"
    page = f"{footer}\none\n\n{ENGLISH}\n{footer}\none\n{footer}\n"
    assert left(RepeatedLines(), page) == f"{footer}\none\n\n{ENGLISH}\none\n"
    assert left(RepeatedLines(lines=0), f"{ENGLISH}\n\n{footer}\n\n{ENGLISH}\n\nend") == (
        f"{ENGLISH}\n\n{footer}\n\n\nend"
    )


@pytest.mark.parametrize("name", Plugin("groundup.text.curate.steps").names())
def test_every_step_judges_empty_and_odd_tables(name: str) -> None:
    step: Any = Plugin("groundup.text.curate.steps").load(name)()
    if isinstance(step, NeedsClassifier):
        pytest.skip("judges with a trained classifier only: test_classifier.py")
    if name == "names":
        pytest.skip("judges with an installed pipeline only: test_names.py")
    for path in ("a.txt", "a.py"):
        for texts in ((), ("", "x", "\n\n\n", "\u2028", "🙂" * 50, "a b " * 5000, "!?.,", "\0", "{[#…")):
            documents = batch(*texts, path=path)
            fates = step.apply(documents)
            assert len(fates.reason) == len(fates.value) == len(fates.threshold) == documents.rows
            assert all(len(values) == documents.rows for values in fates.metrics.values())
            if isinstance(step, HasRules):
                assert {rule.metric for rule in step.rules()} <= set(fates.metrics)


HOSTILE = {
    "one line of 10 MB": "x" * 10_000_000,
    "10 MB of white space": " " * 10_000_000,
    "only punctuation": "!?.,;:…" * 500_000,
    "a million lines": "a line\n" * 1_000_000,
    "a million empty lines": "\n" * 1_000_000,
    "what every rule looks for": '{ [1] javascript lorem ipsum ... # - "\n' * 50_000,
    "bytes in hexadecimal, nearly": ("aa " * 7 + "q ") * 200_000,
    "Chinese without a mark": "中" * 1_000_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_texts_take_seconds_at_most(text: str) -> None:
    for step in RULES:
        path = "a.py" if isinstance(step, Code) else "a.txt"
        began = time.process_time()
        fates = step.apply(batch(text, ENGLISH, path=path))
        assert time.process_time() - began < 10, type(step).__name__
        assert fates.reason[1] is None or isinstance(step, Code)


def test_bytes_that_are_no_utf8_are_survived() -> None:
    lone = pa.array([b"the \xed\xa0\x80 and \xed\xb0\x80. " * 60]).view(pa.string())
    documents = batch("x").documents.set_column(1, "text", lone)
    for step in RULES:
        assert len(step.apply(DocumentBatch(documents)).reason) == 1
