"""Pages of a document, as the reference backend's tools tell of them."""

import os
from pathlib import Path

import pytest

from sandbox.backend.tools.pages import analyse
from sandbox.extraction.document import ExtractionError
from sandbox.extraction.tool import extract

SAMPLES = Path(__file__).resolve().parents[3] / "sandbox/samples"


@pytest.mark.parametrize("name", ["invoice.pdf", "operations-report.pdf", "ledger.xlsx", "water-levels.csv"])
def test_pages_add_up_to_their_document(name: str) -> None:
    whole = extract(SAMPLES / name)
    count = 1 + whole["text"].count("\f")
    pages = [analyse(SAMPLES / name, None, number) for number in range(1, count + 1)]
    assert sum(page["words"] for page in pages) == whole["words"]
    assert sum(page["characters"] for page in pages) + count - 1 == whole["characters"]
    assert {page["mime_type"] for page in pages} == {whole["mime_type"]}


def test_a_document_that_changed_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    path.write_text("two words\fand three more")
    assert [analyse(path, None, number)["words"] for number in (1, 2)] == [2, 3]
    path.write_text("one\f\fwords")
    os.utime(path, (1, 1))
    assert [analyse(path, None, number)["words"] for number in (1, 2, 3)] == [1, 0, 1]


def test_what_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(ExtractionError, match="no page 4"):
        analyse(SAMPLES / "invoice.pdf", None, 4)
    with pytest.raises(ExtractionError, match="cannot be read"):
        analyse(tmp_path / "nothing.pdf", None, 1)
    with pytest.raises(ExtractionError, match="the PDF is damaged"):
        analyse(SAMPLES / "damaged.pdf", None, 1)
