"""The sample documents: each is what it claims to be, and making them again changes nothing."""

from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner
from pypdf import PdfReader
from pypdf.errors import PyPdfError

from sandbox.extraction.document import SUPPORTED, ExtractionError
from sandbox.extraction.tool import extract
from sandbox.make_samples import DOCUMENTS, SAMPLES, invoice_items, ledger_entries, main, make

PHRASES = {
    "invoice.pdf": ("Invoice NI-2026-0417", "Quillmoor Dairies Ltd", "Page 3 of 3", "within 30 days"),
    "operations-report.pdf": ("produced 48.6 GWh", "6. Outlook", "Page 2 of 2"),
    "maintenance-contract.docx": ("4. Response times", "within six hours", "Folding machine Plissé K4\tK4-2093"),
    "meeting-minutes.docx": ("Glaze defects on line 2", "Packaging for the Castlemoor route\tDispatch\t2026-06-26"),
    "ledger.xlsx": ("# January", "2026-01-02\tV0001", "# Accounts\nAccount\tEntries\tSum EUR"),
    "price-list-cp1252.csv": ("Präzisionswaage „Föhr“, 2 kg\tStück", "Preis (€)", "Übergangsstück ½"),
    "shipping-list-utf16.csv": ("Łąka Wielka", "Θέρμη", "Nový Újezd\tControl cabinets"),
    "water-levels.csv": ("2026-06-01T08:00:00+00:00\tAlder Weir", 'float stuck, "tapped" loose'),
    "safety-data-sheet.html": ("Phosphoric acid\t7664-38-2\t25\u201340 %", "do not induce vomiting", "1.27 g/cm³"),
    "restore-runbook.md": ("Order database\t5 minutes\t60 minutes", "backupctl list --database orders"),
    "letter.txt": ("Lindenstraße 12", "€3,480.00", "naïve users", "№ 17"),
    "gateway.log": ("upstream closed the connection", "carrier Zephyr Parcels did not answer"),
}
PAGES = {"invoice.pdf": 3, "operations-report.pdf": 2, "maintenance-contract.docx": 3, "ledger.xlsx": 4}


@pytest.fixture(scope="module")
def made_twice(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folders = [tmp_path_factory.mktemp("samples") for _ in range(2)]
    for folder in folders:
        make(folder)
    return folders


@pytest.mark.parametrize("name", PHRASES)
def test_known_phrases_and_pages(name: str) -> None:
    found = extract(SAMPLES / name)
    assert [phrase for phrase in PHRASES[name] if phrase not in found["text"]] == []
    assert found["mime_type"] == SUPPORTED[Path(name).suffix]
    assert found["pages"] == PAGES.get(name, 1)
    assert not {"mismatch", "repairs", "replaced_characters"} & set(found["metadata"])


def test_every_kind_of_text_document_has_a_sample() -> None:
    kinds = {Path(name).suffix for name in PHRASES}
    assert kinds == {".pdf", ".docx", ".xlsx", ".csv", ".html", ".md", ".txt", ".log"}
    assert set(PHRASES) | {"damaged.pdf"} == set(DOCUMENTS)


def test_damaged_pdf_gives_its_reason() -> None:
    with pytest.raises(PyPdfError):
        list(PdfReader(SAMPLES / "damaged.pdf").pages)
    with pytest.raises(ExtractionError, match="the PDF is damaged: its end is missing"):
        extract(SAMPLES / "damaged.pdf")


def test_invoice_adds_up() -> None:
    text = extract(SAMPLES / "invoice.pdf")["text"]
    net = sum(quantity * price for _, _, quantity, price in invoice_items())
    lines = [line.split() for line in text.splitlines()]
    amounts = [Decimal(line[-1].replace(",", "")) for line in lines if len(line) > 4 and line[1].startswith("NI-")]
    assert sum(amounts) == net
    assert f"Net total EUR {net:,}" in text
    assert f"Total due EUR {net + (net * Decimal('0.2')).quantize(Decimal('0.01')):,}" in text


def test_ledger_adds_up() -> None:
    lines = extract(SAMPLES / "ledger.xlsx")["text"].splitlines()
    totals = [Decimal(line.split("\t")[-1]) for line in lines if line.startswith("Total\t")]
    assert len(totals) == 3
    assert sum(totals) == sum(entry[4] for entry in ledger_entries())
    assert Decimal(lines[-1].split("\t")[-1]) == sum(totals)


def test_tables_keep_their_encodings() -> None:
    facts = {name: extract(SAMPLES / name)["metadata"] for name in PHRASES if name.endswith(".csv")}
    assert {name: (fact["encoding"], fact["delimiter"]) for name, fact in facts.items()} == {
        "price-list-cp1252.csv": ("cp1252", ";"),
        "shipping-list-utf16.csv": ("utf-16", "\t"),
        "water-levels.csv": ("utf-8", ","),
    }
    assert all(fact["columns"] == 5 for fact in facts.values())


def test_page_leaves_scripts_and_styles_out() -> None:
    text = extract(SAMPLES / "safety-data-sheet.html")["text"]
    assert not [word for word in ("analytics", "border-collapse", "enable scripts", "sku", "sds-2") if word in text]


def test_log_is_large_and_compressible() -> None:
    assert 2_800_000 < (SAMPLES / "gateway.log").stat().st_size < 3_500_000
    assert sum(path.stat().st_size for path in SAMPLES.rglob("*") if path.is_file()) < 5_000_000


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_made_again_they_are_the_same(name: str, made_twice: list[Path]) -> None:
    made, again = made_twice
    assert (made / name).read_bytes() == (again / name).read_bytes()
    # Another zlib may pack the same content into other bytes, so the committed file is compared by what it says.
    if name != "damaged.pdf":
        assert extract(made / name) == extract(SAMPLES / name)


def test_command_line(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["--output", str(tmp_path / "new")])
    assert done.exit_code == 0
    assert {path.name for path in (tmp_path / "new").iterdir()} == set(DOCUMENTS)
    assert "invoice.pdf" in done.output
