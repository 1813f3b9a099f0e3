"""Writes the sample documents: `python -m sandbox.make_samples [--output DIR]`.

Dates and seeds are fixed, so that writing them again changes nothing. The words are in samples/source/prose.toml.
"""

import csv
import io
import random
import re
import tomllib
import zipfile
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import docx
import openpyxl
from docx.enum.text import WD_BREAK
from docx.table import Table
from fpdf import FPDF, XPos, YPos
from openpyxl.styles import Font
from openpyxl.worksheet.worksheet import Worksheet

SAMPLES = Path(__file__).parent / "samples"
_MADE = datetime(2026, 6, 1, 8, 0, tzinfo=UTC)
_MODIFIED = re.compile(rb"(<dcterms:modified[^>]*>)[^<]*")
_LOG_LINES = 26_000
_VAT = Decimal("0.20")
_CENT = Decimal("0.01")

Prose = dict[str, Any]


def _random(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - invented readings, not secrets


class _Paper(FPDF):
    """A4 pages with a heading above and "Page n of m" below."""

    def __init__(self, title: str, author: str) -> None:
        super().__init__()
        self._heading = f"{author}  |  {title}"
        self.set_title(title)
        self.set_author(author)
        self.set_creation_date(_MADE)
        self.set_auto_page_break(auto=True, margin=22)
        self.add_page()

    def header(self) -> None:
        self.set_font("Helvetica", "I", 8)
        self.cell(0, 6, self._heading, new_x=XPos.LMARGIN, new_y=YPos.NEXT)
        self.ln(4)

    def footer(self) -> None:
        self.set_y(-15)
        self.set_font("Helvetica", "", 8)
        self.cell(0, 8, f"Page {self.page_no()} of {{nb}}", align="C")

    def paragraph(self, text: str, *, style: str = "", size: int = 10) -> None:
        self.set_font("Helvetica", style, size)
        self.multi_cell(0, size * 0.5, text, new_x=XPos.LMARGIN, new_y=YPos.NEXT)
        self.ln(2)

    def row(self, cells: Sequence[str], widths: Sequence[int], *, style: str = "") -> None:
        self.set_font("Helvetica", style, 9)
        for number, (text, width) in enumerate(zip(cells, widths, strict=True)):
            self.cell(width, 6, text, border="B", align="L" if number < 3 else "R")
        self.ln()


def _invoice(prose: Prose) -> bytes:
    words = prose["invoice"]
    paper = _Paper(f"Invoice {words['number']}", words["seller"][0])
    paper.paragraph(f"Invoice {words['number']}", style="B", size=16)
    paper.paragraph("\n".join(words["seller"]))
    paper.paragraph("Bill to:\n" + "\n".join(words["buyer"]))
    paper.paragraph("Invoice date: 17 April 2026    Delivery: 14 April 2026    Order: QD-88213    Currency: EUR")
    widths = (12, 26, 74, 16, 28, 32)
    paper.row(("No.", "Article", "Description", "Qty", "Unit price", "Amount"), widths, style="B")
    net = Decimal(0)
    for number, (article, name, quantity, price) in enumerate(invoice_items(), 1):
        net += quantity * price
        paper.row((str(number), article, name, str(quantity), f"{price:,}", f"{quantity * price:,}"), widths)
    vat = (net * _VAT).quantize(_CENT)
    paper.ln(3)
    for label, amount in (("Net total", net), ("VAT 20 %", vat), ("Total due", net + vat)):
        paper.row(("", "", "", "", label, f"EUR {amount:,}"), widths, style="B")
    paper.ln(6)
    for term in words["terms"]:
        paper.paragraph(term)
    return bytes(paper.output())


def invoice_items() -> list[tuple[str, str, int, Decimal]]:
    """Return the invoice's items: article number, description, quantity, unit price in EUR."""
    chance = _random(417)
    things = (
        "Milk temperature probe",
        "Conductivity cell",
        "Flow sensor",
        "Level switch",
        "Pressure gauge",
        "Turbidity meter",
        "Sampling valve",
    )
    models = ("T-100", "T-200", "S-15", "S-25", "S-40", "F-8", "F-12 Ex", "H-3", "H-5 hygienic", "Spare seal set")
    return [
        (
            f"NI-{2000 + 7 * number}",
            f"{things[number % len(things)]} {models[number // len(things)]}",
            chance.randint(1, 24),
            Decimal(chance.randint(590, 48_900)) / 100,
        )
        for number in range(len(things) * len(models))
    ]


def _report(prose: Prose) -> bytes:
    words = prose["report"]
    paper = _Paper(words["title"], words["company"])
    paper.paragraph(words["title"], style="B", size=18)
    paper.paragraph(f"{words['company']}, for the board of directors")
    for heading, text in words["sections"]:
        paper.start_section(heading)
        paper.paragraph(heading, style="B", size=13)
        for paragraph in text.split("\n\n"):
            paper.paragraph(paragraph, size=11)
    widths = (30, 30, 30, 30, 30)
    paper.row(("Month", "Row A", "Row B", "Row C", "GWh in all"), widths, style="B")
    for month, *rows in (("July", 6.2, 3.1, 5.4), ("August", 6.0, 5.2, 5.3), ("September", 6.3, 5.6, 5.5)):
        figures = [Decimal(str(row)) for row in rows]
        paper.row((str(month), *map(str, figures), str(sum(figures))), widths)
    return bytes(paper.output())


def _damaged(prose: Prose) -> bytes:
    """A transfer that broke off: the table of contents of a PDF is at its end, and missing here."""
    whole = _report(prose)
    return whole[: len(whole) * 2 // 5]


def _packed(saved: io.BytesIO, replace: Callable[[str, bytes], bytes] = lambda _, part: part) -> bytes:
    """Pack an Office document again, without the time of day that the libraries leave in it."""
    packed = io.BytesIO()
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(packed, "w") as target:
        for name in source.namelist():
            part = zipfile.ZipInfo(name, date_time=_MADE.timetuple()[:6])
            part.compress_type = zipfile.ZIP_DEFLATED
            content = _MODIFIED.sub(rb"\g<1>2026-06-01T08:00:00Z", source.read(name))
            target.writestr(part, replace(name, content))
    return packed.getvalue()


def _word(document: Any, title: str, author: str, pages: int) -> bytes:
    core = document.core_properties
    core.title, core.author, core.comments = title, author, ""
    core.created = core.modified = _MADE.replace(tzinfo=None)
    saved = io.BytesIO()
    document.save(saved)

    def replace(name: str, part: bytes) -> bytes:
        return part.replace(b"<Pages>1<", b"<Pages>%d<" % pages) if name == "docProps/app.xml" else part

    return _packed(saved, replace)


def _fill(table: Table, rows: Iterable[Sequence[str]]) -> None:
    table.style = "Light Grid Accent 1"
    for row in rows:
        cells = table.add_row().cells  # type: ignore[no-untyped-call]
        for cell, text in zip(cells, row, strict=True):
            cell.text = text


def _contract(prose: Prose) -> bytes:
    words = prose["contract"]
    document = docx.Document()
    document.sections[0].header.paragraphs[0].text = words["reference"]
    document.add_heading(words["title"], 0)
    document.add_paragraph(words["parties"])
    for heading, *paragraphs in words["clauses"]:
        document.add_heading(heading, 1)
        for paragraph in paragraphs:
            document.add_paragraph(paragraph)
    document.add_paragraph().add_run().add_break(WD_BREAK.PAGE)
    document.add_heading("Annex A: machines", 1)
    _fill(document.add_table(0, len(words["machines"][0])), words["machines"])
    document.add_paragraph("The shares add up to the fixed sum of EUR 6,840.00 per month named in clause 3.")
    return _word(document, words["title"], "Ostergaard Machine Service Ltd", pages=3)


def _minutes(prose: Prose) -> bytes:
    words = prose["minutes"]
    document = docx.Document()
    document.add_heading(words["title"], 0)
    document.add_paragraph(words["subtitle"])
    for heading, text in words["items"]:
        document.add_heading(heading, 2)
        document.add_paragraph(text)
    document.add_heading("Tasks", 2)
    _fill(document.add_table(0, len(words["tasks"][0])), words["tasks"])
    return _word(document, words["title"], "Brightwater Ceramics Ltd", pages=1)


def ledger_entries() -> list[tuple[date, str, str, str, Decimal]]:
    """Return the ledger's entries: date, voucher, account, text, amount in EUR (costs are negative)."""
    chance = _random(2026)
    kinds = (
        ("4000 Sales", "Timber delivery", 1),
        ("4100 Services", "Cutting to size", 1),
        ("6200 Energy", "Electricity for the kiln", -1),
        ("6500 Vehicles", "Diesel and tolls", -1),
        ("6800 Materials", "Saw blades and oil", -1),
    )
    entries = []
    for number in range(178):
        account, text, sign = chance.choices(kinds, weights=(5, 2, 2, 3, 2))[0]
        amount = sign * Decimal(chance.randint(4_000, 380_000)) / 100
        entries.append((date(2026, 1, 2) + timedelta(days=number // 2), f"V{number + 1:04}", account, text, amount))
    return entries


def _ledger(_: Prose) -> bytes:
    workbook = openpyxl.Workbook()
    workbook.properties.title, workbook.properties.creator = "Ledger 2026", "Elmsworth Timber Ltd"
    workbook.properties.created = _MADE.replace(tzinfo=None)
    entries = ledger_entries()
    results: dict[tuple[str, str], Decimal] = {}
    for index, (name, month) in enumerate((("January", 1), ("February", 2), ("March", 3)), 1):
        sheet = workbook.create_sheet(name)
        chosen = [entry for entry in entries if entry[0].month == month]
        _month_sheet(sheet, chosen)
        results[f"xl/worksheets/sheet{index}.xml", f"E{len(chosen) + 2}"] = sum(
            (entry[4] for entry in chosen), Decimal(0)
        )
    _accounts_sheet(workbook.create_sheet("Accounts"), entries)
    del workbook["Sheet"]
    saved = io.BytesIO()
    workbook.save(saved)
    return _packed(saved, lambda name, part: _with_results(name, part, results))


def _month_sheet(sheet: Worksheet, entries: list[tuple[date, str, str, str, Decimal]]) -> None:
    sheet.append(("Date", "Voucher", "Account", "Text", "Amount EUR"))
    for entry in entries:
        sheet.append(entry)
    sheet.append(("Total", None, None, None, f"=SUM(E2:E{len(entries) + 1})"))
    for cell in (*sheet[1], *sheet[sheet.max_row]):
        cell.font = Font(bold=True)


def _accounts_sheet(sheet: Worksheet, entries: list[tuple[date, str, str, str, Decimal]]) -> None:
    sheet.append(("Account", "Entries", "Sum EUR"))
    for account in sorted({entry[2] for entry in entries}):
        amounts = [entry[4] for entry in entries if entry[2] == account]
        sheet.append((account, len(amounts), sum(amounts)))
    sheet.append(("All accounts", len(entries), sum(entry[4] for entry in entries)))


def _with_results(name: str, part: bytes, results: dict[tuple[str, str], Decimal]) -> bytes:
    """Add to each formula the result a spreadsheet program would have saved with it; openpyxl cannot."""
    for (sheet, cell), result in results.items():
        if sheet == name:
            formula = rb'(<c r="%s"[^>]*><f>[^<]*</f>)<v ?/?>(?:</v>)?' % cell.encode()
            part = re.sub(formula, rb"\g<1><v>%s</v>" % str(result).encode(), part)
    return part


def _table(rows: Iterable[Sequence[object]], delimiter: str, newline: str) -> str:
    written = io.StringIO(newline="")
    csv.writer(written, delimiter=delimiter, lineterminator=newline).writerows(rows)
    return written.getvalue()


def _readings(_: Prose) -> bytes:
    chance = _random(7)
    rows: list[tuple[object, ...]] = [("time", "station", "water level m", "temperature °C", "remark")]
    remarks = ("", "", "", "", "", "ice, reading uncertain", 'float stuck, "tapped" loose', "battery changed")
    for hour in range(24 * 30):
        moment = _MADE + timedelta(hours=hour)
        station = ("Alder Weir", "Brae Lock", "Combe Mill")[hour % 3]
        level, warmth = 1.8 + chance.gauss(0, 0.2), 11 + chance.gauss(0, 2)
        rows.append((moment.isoformat(), station, f"{level:.2f}", f"{warmth:.1f}", chance.choice(remarks)))
    return _table(rows, ",", "\n").encode()


def _log_file(prose: Prose) -> bytes:
    chance = _random(3)
    moment = _MADE
    lines = []
    for number in range(_LOG_LINES):
        moment += timedelta(milliseconds=chance.randint(5, 900))
        template = chance.choices(prose["log"]["messages"], weights=prose["log"]["weights"])[0]
        duration = int(chance.lognormvariate(3.6, 0.9))
        message = template.format(
            gateway=f"gateway-{number % 4}",
            request=f"req={chance.getrandbits(32):08x}",
            path=chance.choice(prose["log"]["paths"]),
            client=f"10.{chance.randint(0, 9)}.{chance.randint(0, 255)}.{chance.randint(1, 254)}",
            duration=duration,
            attempt=duration % 3 + 1,
        )
        lines.append(f"{moment.isoformat(timespec='milliseconds')} {message}\n")
    return "".join(lines).encode()


DOCUMENTS: dict[str, Callable[[Prose], bytes]] = {
    "invoice.pdf": _invoice,
    "operations-report.pdf": _report,
    "damaged.pdf": _damaged,
    "maintenance-contract.docx": _contract,
    "meeting-minutes.docx": _minutes,
    "ledger.xlsx": _ledger,
    "price-list-cp1252.csv": lambda prose: _table(prose["price_list"]["rows"], ";", "\r\n").encode("cp1252"),
    "shipping-list-utf16.csv": lambda prose: (
        b"\xff\xfe" + _table(prose["shipping_list"]["rows"], "\t", "\r\n").encode("utf-16-le")
    ),
    "water-levels.csv": _readings,
    "safety-data-sheet.html": lambda prose: prose["text"]["safety_data_sheet"].encode(),
    "restore-runbook.md": lambda prose: prose["text"]["runbook"].encode(),
    "letter.txt": lambda prose: prose["text"]["letter"].encode(),
    "gateway.log": _log_file,
}
"""File name to the function that makes its bytes."""


def make(output: Path) -> list[Path]:
    """Write every sample into the directory, which is made if need be, and return their paths."""
    prose = tomllib.loads((SAMPLES / "source" / "prose.toml").read_text(encoding="utf-8"))
    output.mkdir(parents=True, exist_ok=True)
    for name, document in DOCUMENTS.items():
        (output / name).write_bytes(document(prose))
    return [output / name for name in DOCUMENTS]


@click.command()
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), default=SAMPLES, show_default=True)
def main(output: Path) -> None:
    """Write the sample documents."""
    for path in make(output):
        click.echo(f"{path.stat().st_size:>10,} bytes  {path}")


if __name__ == "__main__":
    main()
