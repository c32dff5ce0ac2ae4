"""The standard library as a corpus."""

import sysconfig
from pathlib import Path

from groundup.core.progress import Reporter
from groundup.core.runtime import Runtime
from groundup.core.stage import StageContext
from groundup.text.documents import read_documents, read_rejects_log
from groundup.text.ingest.ingest import Ingest, external_digest, ingest
from groundup.text.ingest.sources.stdlib import Stdlib


def test_the_library_is_there_and_its_test_suites_are_not(tmp_path: Path) -> None:
    metrics = ingest(Ingest(), Runtime(), StageContext(tmp_path, Reporter(quiet=True)))
    documents = {document.path: document for document in read_documents(tmp_path)}
    assert len(documents) == metrics["documents"] > 400
    library = Path(sysconfig.get_path("stdlib"))
    assert documents["textwrap.py"].text == (library / "textwrap.py").read_text(encoding="utf-8")
    assert "json/decoder.py" in documents and documents["textwrap.py"].licence == "PSF-2.0"
    folders = {part for path in documents for part in path.split("/")[:-1]}
    assert folders.isdisjoint({"test", "tests", "idle_test", "site-packages", "__pycache__"})
    assert "pydoc_data/topics.py" not in documents
    topic = documents["pydoc_data/topics/assert"].text
    assert "assert_stmt" in topic and "\n" in topic
    assert {entry.reason for entry in read_rejects_log(tmp_path)} <= {"empty", "decoded_as_cp1252"}
    assert len({document.id for document in documents.values()}) == len(documents)


def test_the_digest_is_of_every_file_and_repeats() -> None:
    one, two = external_digest(Ingest()), external_digest(Ingest())
    assert one == two and one[0]["source"] == "stdlib"
    assert one[0]["files"] == len(list(Stdlib().files()))
