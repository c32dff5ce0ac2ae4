"""What an inspection counts, chooses and shows, against worlds whose every fate is known."""

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inspect_helpers import DocumentFate, write_corpus_fixture

from groundup.core.errors import DataError
from groundup.text.curate.curate import Curate
from groundup.text.curate.mix import Mix
from groundup.text.curate.steps.length import Length
from groundup.text.curate.steps.privacy import Privacy
from groundup.text.documents import RejectsLogEntry
from groundup.text.inspect.collect import collect
from groundup.text.inspect.corpus import Corpus
from groundup.text.inspect.differences import changes, words
from groundup.text.inspect.distribution import DROPPED, KEPT, LATER, Distribution
from groundup.text.inspect.lookup import document_history, find_documents
from groundup.text.inspect.page import page
from groundup.text.inspect.report import Bound, CorpusReport, DocumentHistory
from text_helpers import run_acquire, run_curate

ASIDE = [
    RejectsLogEntry(
        "f" * 15 + "1", "web", "broken.gz", "ingest", "rejected", "truncated", None, None, "after 12 bytes"
    )
]
HITS = [
    {
        "item": "arc#7",
        "task": "arc",
        "id": "0" * 15 + "5",
        "overlap": 20,
        "text": "which of these is a mineral",
    }
]


def sample_documents() -> list[DocumentFate]:
    """300 documents of two sources: short ones dropped, copies dropped, addresses redacted."""
    random = np.random.default_rng(0)
    fates = []
    for number in range(300):
        length = int(random.integers(20, 200))
        text = f"Text number {number}.\n" + " ".join(f"word{n}" for n in random.integers(0, 500, length))
        outcome, duplicate_of, final = "kept", None, None
        if length < 50:
            outcome = "gopher_quality: too_few_words"
        elif number % 7 == 0 and number > 100:
            outcome, duplicate_of = (
                "dedup: near_duplicate",
                (f"{(number // 50) * 50 + 1:016x}", 0.8 + number / 2000, "near"),
            )
        elif number % 11 == 0:
            text, final = text + " write to a@b.org", text + " write to <EMAIL>"
        fates.append(
            DocumentFate(
                f"{number:016x}", text, outcome, "web" if number % 3 else "books", f"page/{number}.html",
                "en" if number % 4 else "de", "CC0" if number % 3 else "public domain", final,
                {"gopher_quality.words": length, "gopher_quality.symbols": 0.0, "privacy.email": "@" in text},
                float(length), 50.0, duplicate_of,
            )
        )  # fmt: skip
    return fates


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write_corpus_fixture(tmp_path_factory.mktemp("world"), sample_documents(), ASIDE, HITS)


@pytest.fixture(scope="module")
def report(world: Corpus) -> CorpusReport:
    return collect(world, "demo")


def test_read_is_kept_and_dropped_in_documents_and_bytes_of_every_source(report: CorpusReport) -> None:
    fates = sample_documents()
    for source in (None, "web", "books"):
        mine = [d for d in fates if source in (None, d.source)]
        kept = [d for d in mine if d.outcome == "kept"]
        assert report.amount(None, source).documents == len(mine)
        assert report.amount(None, source).bytes == sum(len(d.text.encode()) for d in mine)
        assert report.amount("", source).documents == len(kept)
        assert report.funnel(source)[-1][2] == report.amount("", source)
    assert [step for step, _, _ in report.funnel()] == ["gopher_quality", "privacy", "dedup"]
    assert all(check.holds for check in report.checks)


def test_reasons_languages_licences_and_redactions_are_counted(report: CorpusReport) -> None:
    fates = sample_documents()
    outcomes = Counter(d.outcome for d in fates)
    said = {f"{r.step}: {r.reason}": r.entries for r in report.reasons if r.outcome == "dropped"}
    assert said == {outcome: number for outcome, number in outcomes.items() if outcome != "kept"}
    assert {r.reason: r.rule for r in report.reasons}["too_few_words"] == "words ≥ 50"
    read = {language: amount.documents for language, amount, _ in report.languages}
    assert read == Counter(d.language for d in fates)
    assert {f.source: f.licences[0][0] for f in report.files} == {"books": "public domain", "web": "CC0"}
    redacted = sum(d.final is not None for d in fates)
    assert report.redactions == (("email", redacted, redacted),)
    assert {f.source: f.rejected for f in report.files} == {"books": 0, "web": 1}
    assert report.contamination.tasks == (("arc", 1, 1, 1),)


def test_a_rejects_log_with_missing_rows_fails_the_check(tmp_path: Path) -> None:
    corpus = write_corpus_fixture(tmp_path, sample_documents())
    corpus.curated_path("rejects/00001.parquet").unlink()
    failed = [check.text for check in collect(corpus).checks if not check.holds]
    assert (
        len(failed) == 2
        and "dropped in the rejects log" in failed[0]
        and "but dedup: near_duplicate" in failed[1]
    )


def test_documents_repeated_by_mixing_are_no_contradiction(tmp_path: Path) -> None:
    corpus = write_corpus_fixture(tmp_path, sample_documents())
    again = corpus.curated_path("documents/00009.parquet")
    again.write_bytes(corpus.curated_path("documents/00000.parquet").read_bytes())
    last = collect(corpus).checks[-1]
    assert last.holds and "repeated by mixing" in last.text


def test_samples_do_not_depend_on_how_the_corpus_is_cut_into_shards(
    tmp_path: Path, report: CorpusReport
) -> None:
    others = collect(write_corpus_fixture(tmp_path, sample_documents(), ASIDE, HITS, shard=17), "demo")
    assert others.groups == report.groups
    assert others.documents == report.documents
    assert others.index == report.index and len(report.index) == 300
    assert others.histograms == report.histograms


def test_every_reason_has_its_samples_and_every_limit_its_narrow_escapes(report: CorpusReport) -> None:
    groups = {(group.kind, group.reason): group for group in report.groups}
    assert len(groups["dropped", "too_few_words"].ids) == 5 and len(groups["changed", "redacted"].ids) == 5
    lengths = {d.id: d.metrics["gopher_quality.words"] for d in sample_documents() if d.outcome == "kept"}
    near = groups["near", "too_few_words"].ids
    assert sorted(lengths[id] for id in near) == sorted(lengths.values())[:3]
    assert ("near", "many_symbols") not in groups
    passed = [(g.step, g.total, len(g.ids)) for g in report.groups if g.kind == "passed"]
    assert passed == [(step, left.documents, 3) for step, _, left in report.funnel()]
    assert groups["rejected", "truncated"].ids == (ASIDE[0].id,)
    assert report.documents[ASIDE[0].id].outcome == "rejected: truncated"


def test_a_changed_document_shows_what_went_and_what_came(report: CorpusReport) -> None:
    group = next(group for group in report.groups if group.kind == "changed")
    for id in group.ids:
        pieces = report.documents[id].changes
        assert ("-", "a@b.org") in pieces and ("+", "<EMAIL>") in pieces


def test_clusters_have_their_duplicates_beside_them(report: CorpusReport) -> None:
    members = [d for d in sample_documents() if d.duplicate_of]
    assert report.duplicates.kinds == (("near", len(members)),)
    assert report.duplicates.clusters == len({d.duplicate_of[0] for d in members if d.duplicate_of})
    assert sum(number for _, number in report.duplicates.sizes) == report.duplicates.clusters
    for cluster in report.duplicates.shown:
        assert cluster.dropped == sum(
            d.duplicate_of is not None and d.duplicate_of[0] == cluster.kept for d in members
        )
        assert all(
            duplicate_of.id in report.documents and duplicate_of.changes for duplicate_of in cluster.members
        )


def test_numbers_are_json_that_every_reader_takes(report: CorpusReport) -> None:
    said = json.loads(json.dumps(report.numbers(), allow_nan=False))
    assert said["read"]["documents"] == 300 and said["title"] == "demo"
    assert "documents" not in said and "word" not in json.dumps(said["duplicates"])


def test_missing_metrics_are_an_error_that_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no document metrics\. Rebuild it"):
        collect(Corpus(tmp_path, tmp_path))


def test_before_curation_every_document_counts_as_kept_so_far(world: Corpus) -> None:
    raw = Corpus(world.ingested)
    said = collect(raw, "demo")
    assert not said.curated and said.amount().documents == said.amount("").documents == 300
    assert said.checks[0].text == "300 documents found in the files = 300 ingested" and said.checks[0].holds
    assert {group.kind for group in said.groups} == {"kept", "rejected"} and not said.histograms
    assert [d.path for d in find_documents(raw, "page/117.html")] == ["page/117.html"]
    assert document_history(raw, f"{22:016x}").text.endswith("a@b.org")
    assert json.loads(json.dumps(said.numbers()))["curated"] is False


def test_what_a_real_run_leaves_adds_up(tmp_path: Path) -> None:
    words = [
        "the",
        "people",
        "of",
        "a",
        "town",
        "have",
        "read",
        "that",
        "they",
        "will",
        "be",
        "with",
        "us",
        "so",
    ]
    random = np.random.default_rng(3)
    texts = [f"Report {n}. " + " ".join(random.choice(words, 80)) for n in range(30)]
    texts += [
        texts[0],
        texts[1] + " more",
        "too short",
        "write to ann@example.org now, or to her friend " * 3,
    ]
    folder = tmp_path / "raw"
    folder.mkdir()
    for number, text in enumerate(texts):
        (folder / f"{number:02d}.txt").write_text(text)
    (folder / "empty.txt").write_text("")
    raw = run_acquire(tmp_path / "ingest-x", folder)
    recipe = Curate(
        steps=(Length(min_chars=1, min_words=5), Privacy()), mix=Mix(shuffle=True, total_bytes=8000)
    )
    curated_path = run_curate(tmp_path / "curate-x", raw, recipe)
    said = collect(Corpus(raw.path, curated_path.path))
    assert all(check.holds for check in said.checks), said.checks
    assert said.amount().documents == curated_path.metrics["documents_read"] == 34
    assert said.amount("").documents == curated_path.metrics["documents_kept"]
    assert (
        said.amount("").bytes > 0
        and sum(a.bytes for _, a in said.corpus) == curated_path.metrics["mix"]["bytes"]
    )
    dropped = {r.reason: r.entries for r in said.reasons if r.outcome == "dropped"}
    assert dropped == curated_path.metrics["reasons"] and {
        "too_few_words",
        "exact_duplicate",
        "not_sampled",
    } <= set(dropped)
    assert [r.reason for r in said.reasons if r.outcome == "rejected"] == ["empty"]
    assert json.loads(page(said).split('id="report">')[1].split("</script>")[0])["drawn"] == 34


def test_a_search_finds_words_in_paths_and_texts_whatever_their_case(world: Corpus) -> None:
    assert [d.path for d in find_documents(world, "NUMBER 17.")] == [
        "page/17.html",
        "page/117.html",
        "page/217.html",
    ]
    assert [d.id for d in find_documents(world, "page/299")] == [f"{299:016x}"]
    assert len(find_documents(world, "text", limit=4)) == 4
    assert find_documents(world, "nowhere-to-be-found") == []
    assert [(d.path, d.outcome) for d in find_documents(world, "broken.gz after")] == [
        ("broken.gz", "rejected: truncated")
    ]
    with pytest.raises(DataError, match="search for what"):
        find_documents(world, "  ")


def test_a_document_is_found_by_the_beginning_of_its_id(world: Corpus) -> None:
    whole = document_history(world, f"{22:016x}")
    assert whole.final is not None and whole.final.endswith("<EMAIL>") and whole.text.endswith("a@b.org")
    assert [(event.step, event.reason, event.detail) for event in whole.events] == [
        ("privacy", "redacted", "1 email")
    ]
    assert whole.metrics["privacy.email"] == 1 and whole.licence == "CC0"
    assert document_history(world, "fff").outcome == "rejected: truncated"
    assert document_history(world, f"{5:016x}").hits[0]["item"] == "arc#7"
    with pytest.raises(DataError, match="more than one document's id begins with `00`"):
        document_history(world, "00")
    with pytest.raises(DataError, match="no document's id begins with `abc`"):
        document_history(world, "abc")


def test_whole_numbers_are_counted_exactly_and_a_threshold_parts_the_bars() -> None:
    random = np.random.default_rng(1)
    values, outcome = random.integers(0, 30, 5000).astype(float), random.integers(0, 3, 5000)
    drawn = Distribution()
    drawn.add(values, outcome)
    said = drawn.histogram(
        "step", "n", [Bound("step", "few", "n", 7.0, None), Bound("step", "many", "n", None, 20.0)]
    )
    assert said is not None and len(said.kept) == 30
    for name, code in (("kept", KEPT), ("later", LATER), ("dropped", DROPPED)):
        assert (
            list(getattr(said, name))
            == np.bincount(values[outcome == code].astype(int), minlength=30).tolist()
        )
    total = np.array(said.kept) + said.later + said.dropped
    few, many = said.thresholds
    assert total[: int(few.at)].sum() == (values < 7).sum()
    assert total[int(many.at) :].sum() == (values > 20).sum()


@pytest.mark.parametrize("scale", ["normal", "lognormal", "share"])
def test_a_distribution_agrees_with_numpy_and_needs_one_pass(scale: str) -> None:
    random = np.random.default_rng(2)
    values = {
        "normal": random.normal(0, 5, 20_000),
        "lognormal": np.round(random.lognormal(6, 2, 20_000)),
        "share": random.beta(2, 5, 20_000),
    }[scale].astype(np.float32)
    whole, parts = Distribution(), Distribution()
    whole.add(values, np.zeros(len(values), int))
    for piece in np.array_split(values, 200):
        parts.add(piece, np.zeros(len(piece), int))
    said = whole.histogram("s", "m")
    assert said == parts.histogram("s", "m") and said is not None
    assert sum(said.kept) == said.documents == len(values)
    for share, found in ((0.01, said.low), (0.5, said.median), (0.99, said.high)):
        assert found == pytest.approx(np.quantile(values, share, method="inverted_cdf"), rel=5e-4)
    assert said.log == (scale == "lognormal")
    assert 2 <= len(said.ticks) <= 8


def test_odd_values_do_not_break_a_histogram() -> None:
    drawn = Distribution()
    drawn.add(np.array([np.nan, np.inf, -np.inf, 0.0]), np.zeros(4, int))
    assert drawn.histogram("s", "m").documents == 3  # type: ignore[union-attr]
    constant = Distribution()
    constant.add(np.zeros(10), np.zeros(10, int))
    said = constant.histogram("s", "m", [Bound("s", "r", "m", None, 0.3)])
    assert said is not None and sum(said.kept) == 10 and 0 < said.thresholds[0].at <= len(said.kept)
    assert Distribution().histogram("s", "m") is None


@given(st.text(alphabet="ab .\n\u00e9"), st.text(alphabet="ab .\n\u00e9"))
def test_a_word_difference_holds_both_texts(old: str, new: str) -> None:
    pieces = words(old, new)
    assert "".join(text for op, text in pieces if op in "=-") == old
    assert "".join(text for op, text in pieces if op in "=+") == new


def test_a_difference_of_long_texts_is_short_and_leads_to_the_place() -> None:
    old = "\n".join(f"line {number} of a long text" for number in range(5000))
    said = changes(old, old.replace("line 2500 of", "line 2500 off"), 1500)
    assert ("-", "of") in said and ("+", "off") in said
    assert sum(len(text) for _, text in said) < 400
    assert changes("same", "same", 100) == ()
    one_line = "x" * 50_000
    assert sum(len(text) for _, text in changes(one_line + "a", one_line + "b", 1500)) < 4000


def test_the_page_stays_small_and_says_what_it_left_out(report: CorpusReport) -> None:
    long = "\u6f22" * 1500
    documents = {
        f"{n:016x}": DocumentHistory(f"{n:016x}", "web", long, "kept", text=long) for n in range(4000)
    }
    group = replace(report.groups[0], ids=tuple(documents))
    index = tuple((f"{n:016x}", "<" * 1000, "web", "zh", 1, "kept") for n in range(20_000))
    html = page(replace(report, documents=documents, groups=(group,), index=index))
    assert len(html.encode()) < 15_000_000
    data = json.loads(html.split('id="report">')[1].split("</script>")[0])
    assert len(data["documents"]) + data["unshown"] == 4000 and 0 < data["unshown"] < 4000
    assert 0 < len(data["index"]) < 20_000


def test_no_document_can_end_the_block_its_text_stands_in(tmp_path: Path) -> None:
    hostile = "</script><script>alert(1)</script><!--<script>"
    fates = [DocumentFate("1" * 16, hostile, path=hostile, source=hostile, language=hostile, licence=hostile)]
    html = page(collect(write_corpus_fixture(tmp_path, fates), hostile))
    assert html.count("<script") == 2 and html.count("</script>") == 2 and "<!--" not in html
    assert "default-src 'none'; script-src 'sha256-" in html and "unsafe" not in html


def test_the_script_reads_only_fields_that_the_page_has(world: Corpus) -> None:
    html = page(collect(world))
    data = json.loads(html.split('id="report">')[1].split("</script>")[0])
    script = html.rpartition("<script>")[2]
    bars = data["histograms"][0] | data["contamination"]["hits"][0]  # both are called h
    document = next(iter(data["documents"].values())) | data["duplicates"]
    for name, fields in (("report", data), ("h", bars), ("d", document)):
        wanted = set(re.findall(rf"(?<![\w.$]){name}\.(\w+)", script))
        assert wanted and wanted <= fields.keys(), (name, wanted - fields.keys())
