"""The document tool on documents made here: what it reads, and what it says when it cannot."""

import io
import json
import logging
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import docx
import openpyxl
import pytest
from fpdf import FPDF
from fpdf.enums import EncryptionMethod
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from sandbox.extraction import archive, tool
from sandbox.extraction.document import SUPPORTED, ExtractionError
from sandbox.extraction.tool import extract
from sandbox.make_samples import SAMPLES

KEYS = {"text", "mime_type", "pages", "words", "characters", "metadata"}
ROOT = Path(__file__).parents[3]


def put(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def reason(path: Path, mime_type: str | None = None) -> str:
    with pytest.raises(ExtractionError) as caught:
        extract(path, mime_type)
    return str(caught.value)


def pdf(*pages: str, password: str | None = None) -> bytes:
    paper = FPDF()
    if password is not None:
        paper.set_encryption("owner", password, encryption_method=EncryptionMethod.RC4)
    paper.set_title("Title of it")
    paper.set_producer("Press 1")
    for text in pages:
        paper.add_page()
        paper.set_font("Helvetica", size=12)
        paper.multi_cell(0, 6, text)
    return bytes(paper.output())


def word(*, edit: Callable[[Any], Any] = lambda _: None) -> bytes:
    document = docx.Document()
    document.add_paragraph("before")
    table = document.add_table(2, 2)
    for number, cell in enumerate(cell for row in table.rows for cell in row.cells):
        cell.text = f"cell\n{number}"
    document.add_paragraph("after\tthe table")
    edit(document)
    saved = io.BytesIO()
    document.save(saved)
    return saved.getvalue()


def workbook(edit: Callable[[Any], Any] = lambda _: None) -> bytes:
    book = openpyxl.Workbook()
    edit(book)
    saved = io.BytesIO()
    book.save(saved)
    return saved.getvalue()


def picture(kind: str, **options: object) -> bytes:
    saved = io.BytesIO()
    Image.effect_noise((120, 80), 60).save(saved, kind, **options)
    return saved.getvalue()


class TestPdf:
    def test_pages_are_parted_by_form_feeds(self, tmp_path: Path) -> None:
        found = extract(put(tmp_path, "a.pdf", pdf("first page", "second page")))
        assert found["text"] == "first page\fsecond page"
        assert (found["pages"], found["words"], found["mime_type"]) == (2, 4, "application/pdf")
        assert found["metadata"]["title"] == "Title of it"
        assert found["metadata"]["producer"] == "Press 1"
        assert datetime.fromisoformat(found["metadata"]["created"])

    def test_encrypted(self, tmp_path: Path) -> None:
        assert "password" in reason(put(tmp_path, "a.pdf", pdf("secret", password="user")))

    def test_protected_against_printing_only(self, tmp_path: Path) -> None:
        assert extract(put(tmp_path, "a.pdf", pdf("open to all", password="")))["text"] == "open to all"

    def test_without_text_layer(self, tmp_path: Path) -> None:
        assert "no text layer; it needs OCR" in reason(put(tmp_path, "a.pdf", picture_pdf()))

    @pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.9, 0.99])
    def test_cut_off_never_loses_text_silently(self, tmp_path: Path, part: Any) -> None:
        whole = pdf(*(f"page {number}" for number in range(5)))
        assert reason(put(tmp_path, "a.pdf", whole[: int(len(whole) * part)])).startswith("the PDF is damaged: ")

    def test_hole_in_the_middle_never_loses_pages_silently(self, tmp_path: Path) -> None:
        whole = pdf(*(f"page {number} " * 200 for number in range(6)))
        third = len(whole) // 3
        assert "of 6 pages are readable" in reason(put(tmp_path, "a.pdf", whole[:third] + whole[2 * third :]))

    def test_repairs_are_told_in_the_metadata_and_nowhere_else(self, tmp_path: Path, capfd: Any) -> None:
        found = extract(put(tmp_path, "a.pdf", pdf("text")[:-3]))
        assert found["metadata"]["repairs"] == ["EOF marker seems truncated"]
        assert logging.lastResort is not None
        logging.lastResort.flush()
        assert capfd.readouterr() == ("", "")

    def test_malformed_date_is_no_reason_to_refuse(self, tmp_path: Path) -> None:
        data = pdf("text").replace(b"/CreationDate (D:20", b"/CreationDate (D:XX")
        assert extract(put(tmp_path, "a.pdf", data))["metadata"]["created"].startswith("D:XX")


def picture_pdf() -> bytes:
    paper = FPDF()
    paper.add_page()
    paper.image(Image.effect_noise((50, 50), 60))
    return bytes(paper.output())


class TestWord:
    def test_paragraphs_and_tables_in_order(self, tmp_path: Path) -> None:
        found = extract(put(tmp_path, "a.docx", word()))
        assert found["text"] == "before\ncell 0\tcell 1\ncell 2\tcell 3\nafter\tthe table"
        assert found["metadata"]["tables"] == 1
        assert (found["pages"], found["metadata"]["pages_from"]) == (1, "application properties")

    def test_merged_cells_are_read_once(self, tmp_path: Path) -> None:
        def merge(document: Any) -> Any:
            table = document.tables[0]
            table.cell(0, 0).merge(table.cell(0, 1)).text = "wide"

        assert "wide\ncell 2" in extract(put(tmp_path, "a.docx", word(edit=merge)))["text"]

    def test_header_and_properties(self, tmp_path: Path) -> None:
        def edit(document: Any) -> Any:
            document.sections[0].header.paragraphs[0].text = "Running head"
            document.core_properties.title = "T"
            document.core_properties.created = datetime(2026, 5, 4, tzinfo=UTC)

        metadata = extract(put(tmp_path, "a.docx", word(edit=edit)))["metadata"]
        assert (metadata["header"], metadata["title"]) == ("Running head", "T")
        assert metadata["created"].startswith("2026-05-04T00:00:00")

    def test_without_application_properties_one_page_is_assumed(self, tmp_path: Path) -> None:
        found = extract(put(tmp_path, "a.docx", edited(word(), "docProps/app.xml", lambda _: b"<Properties/>")))
        assert (found["pages"], found["metadata"]["pages_from"]) == (1, "assumed")

    def test_form_fields_are_text_too(self, tmp_path: Path) -> None:
        def wrap(part: Any) -> Any:
            start = part.index(b"<w:p>")
            end = part.index(b"</w:p>") + len(b"</w:p>")
            field = b"<w:sdt><w:sdtContent>" + part[start:end] + b"</w:sdtContent></w:sdt>"
            return part[:start] + field + part[end:]

        found = extract(put(tmp_path, "a.docx", edited(word(), "word/document.xml", wrap)))
        assert found["text"].startswith("before\ncell 0")

    def test_damaged(self, tmp_path: Path) -> None:
        broken = edited(word(), "word/document.xml", lambda part: part[: len(part) // 2])
        assert reason(put(tmp_path, "a.docx", broken)).startswith("the Word document is damaged: ")


def edited(data: bytes, name: str, edit: Any) -> bytes:
    saved = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(saved, "w") as target:
        for member in source.namelist():
            part = source.read(member)
            target.writestr(member, edit(part) if member == name else part)
    return saved.getvalue()


class TestWorkbook:
    def test_sheets_dates_and_numbers(self, tmp_path: Path) -> None:
        def fill(book: Any) -> Any:
            book.active.title = "One"
            book.active.append(["when", "what", None, "much"])
            book.active.append([])
            book.active.append([date(2026, 2, 3), "a\nb", None, 0.1 + 0.2])
            book.create_sheet("Two").append([datetime.fromisoformat("2026-02-03T04:05"), True, 12])

        found = extract(put(tmp_path, "a.xlsx", workbook(fill)))
        assert found["text"] == (
            "# One\nwhen\twhat\t\tmuch\n2026-02-03\ta b\t\t0.3\n\n# Two\n2026-02-03T04:05:00\tTRUE\t12"
        )
        assert found["pages"] == 2
        assert found["metadata"]["sheets"] == ["One", "Two"]
        assert found["metadata"]["rows"] == 3

    @pytest.mark.timeout(30)
    def test_extent_that_lies_costs_no_time(self, tmp_path: Path) -> None:
        def lie(part: Any) -> Any:
            return part.replace(b'<dimension ref="A1:A1"/>', b'<dimension ref="A1:XFD1048576"/>')

        data = edited(workbook(lambda book: book.active.append(["x"])), "xl/worksheets/sheet1.xml", lie)
        assert extract(put(tmp_path, "a.xlsx", data))["text"] == "# Sheet\nx"

    def test_empty_workbook(self, tmp_path: Path) -> None:
        assert "no text" in reason(put(tmp_path, "a.xlsx", workbook()))

    def test_damaged(self, tmp_path: Path) -> None:
        broken = edited(workbook(), "xl/workbook.xml", lambda part: part[:50])
        assert reason(put(tmp_path, "a.xlsx", broken)).startswith("the workbook is damaged: ")


@pytest.mark.parametrize(("suffix", "data"), [(".docx", word()), (".xlsx", workbook())])
def test_zip_bomb(tmp_path: Path, suffix: str, data: Any) -> None:
    saved = io.BytesIO(data)
    with zipfile.ZipFile(saved, "a", zipfile.ZIP_DEFLATED) as target, target.open("bomb.xml", "w") as part:
        for _ in range(archive.MAX_UNPACKED_BYTES // 10_000_000 + 1):
            part.write(bytes(10_000_000))
    path = put(tmp_path, f"a{suffix}", saved.getvalue())
    assert path.stat().st_size < 1_000_000
    assert reason(path).startswith("the document is too large: it unpacks to ")


class TestEncodings:
    GERMAN = "Prüfgerät für Öl – Größe „XL“\nkostet 12,50 €\n"  # noqa: RUF001 - the dash is what tells encodings apart

    @pytest.mark.parametrize(
        ("text", "encoding", "found"),
        [
            (GERMAN, "utf-8", "utf-8"),
            (GERMAN, "utf-8-sig", "utf-8-sig"),
            (GERMAN, "utf-16", "utf-16"),
            (GERMAN, "utf-32", "utf-32"),
            (GERMAN, "utf-16-le", "utf-16-le"),
            (GERMAN, "utf-16-be", "utf-16-be"),
            (GERMAN, "cp1252", "cp1252"),
            ("Café crème à volonté, déjà payé\n", "cp1252", "cp1252"),
            ("Příjemce: žluťoučký kůň, množství\n", "cp1250", "cp1250"),
            ("Отчёт о поставке; количество; цена\n", "cp1251", "cp1251"),  # noqa: RUF001 - Cyrillic on purpose
        ],
    )
    def test_is_recognised(self, tmp_path: Path, text: Any, encoding: str, found: Any) -> None:
        result = extract(put(tmp_path, "a.txt", text.encode(encoding)))
        assert (result["text"], result["metadata"]["encoding"]) == (text, found)

    def test_evidence_far_down(self, tmp_path: Path) -> None:
        data = b"plain line\n" * 50_000 + self.GERMAN.encode("cp1252")
        assert extract(put(tmp_path, "a.log", data))["text"].endswith(self.GERMAN)

    def test_a_broken_byte_in_utf8_is_not_another_encoding(self, tmp_path: Path) -> None:
        found = extract(put(tmp_path, "a.log", ("Größe\n" * 100).encode() + b"\xff\n"))
        assert found["text"].startswith("Größe")
        assert found["metadata"]["replaced_characters"] == 1

    def test_text_is_clean(self, tmp_path: Path) -> None:
        found = extract(put(tmp_path, "a.txt", b"one\r\ntwo\rthree\x00 \x1b[31mred\x1b[0m " + b"x" * 50))
        assert found["text"] == "one\ntwo\nthree red " + "x" * 50

    @pytest.mark.timeout(30)
    @pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
    def test_megabytes(self, tmp_path: Path, encoding: str) -> None:
        text = "".join(f"{number} für die Länge der Datei\n" for number in range(150_000))
        path = put(tmp_path, "a.log", text.encode(encoding))
        assert extract(path)["metadata"]["lines"] == 150_000

    @pytest.mark.parametrize("suffix", [".txt", ".csv", ".html", ".md", ".log"])
    def test_binary_garbage(self, tmp_path: Path, suffix: str) -> None:
        assert "is not text" in reason(put(tmp_path, f"a{suffix}", bytes(range(256)) * 40))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_delimiters(tmp_path: Path, delimiter: Any) -> None:
    text = f'a{delimiter}b{delimiter}c\n"1\n1"{delimiter}2,5;0{delimiter}\n\n'
    text = text.replace("2,5;0", '"2,5;0"')
    found = extract(put(tmp_path, "a.csv", text.encode()))
    assert found["text"] == "a\tb\tc\n1 1\t2,5;0\t"
    assert found["metadata"] == {
        "encoding": "utf-8",
        "delimiter": delimiter,
        "rows": 2,
        "columns": 3,
        "heading": ["a", "b", "c"],
    }


def test_csv_that_names_its_delimiter(tmp_path: Path) -> None:
    found = extract(put(tmp_path, "a.csv", b"sep=;\r\n1,5;2\r\n"))
    assert found["text"] == "1,5\t2"


def test_csv_with_a_quote_that_never_ends(tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", b'a,b\n1,"' + b"x\n" * 200_000)
    assert reason(path).startswith("the table cannot be read: ")


def test_html_shows_what_a_reader_sees(tmp_path: Path) -> None:
    page = (
        "<html lang=de><head><title> A  page </title><style>p{}</style><meta name=Author content='Acme Ltd'>"
        "<body><script>no()</script><p>One <b>bold</b>\n word<br>next</p>tail<!-- no -->"
        "<table><tr><td>1</td><td> 2 </td></tr><tr><td>3</td></tr></table><pre>  a\n    b</pre>"
    )
    found = extract(put(tmp_path, "a.htm", page.encode()))
    assert found["text"].strip("\n") == "One bold word\nnext\ntail\n1\t2\n3\n  a\n    b"
    assert found["metadata"] == {"encoding": "utf-8", "title": "A page", "language": "de", "author": "Acme Ltd"}


def test_html_that_declares_its_encoding(tmp_path: Path) -> None:
    page = '<meta charset="koi8-r"><p>Отчёт</p>'
    found = extract(put(tmp_path, "a.html", page.encode("koi8-r")))
    assert (found["text"], found["metadata"]["encoding"]) == ("Отчёт", "koi8-r")


def test_markdown_is_rendered(tmp_path: Path) -> None:
    source = (
        "---\ntitle: x\n---\n# Head *one*\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n- item `code`\n\n"
        "## Two\n<script>no()</script>\n"
    )
    found = extract(put(tmp_path, "a.md", source.encode()))
    assert found["text"] == "Head one\na\tb\n1\t2\nitem code\nTwo"
    assert found["metadata"]["headings"] == ["Head one", "Two"]
    assert found["metadata"]["title"] == "Head one"
    assert found["metadata"]["front_matter"] == "title: x"


@pytest.mark.timeout(30)
@pytest.mark.parametrize("nested", ["<b>x ", "<div>x ", "<td>x ", "<p><i>x</p>"])
def test_html_nested_without_end_is_no_quadratic_work(tmp_path: Path, nested: Any) -> None:
    assert extract(put(tmp_path, "a.html", nested.encode() * 20_000))["words"] == 20_000


@pytest.mark.parametrize("suffix", [".md", ".html"])
def test_markup_beyond_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.setattr("sandbox.extraction.web.MAX_MARKUP_BYTES", 10)
    assert "bytes of markup" in reason(put(tmp_path, f"a{suffix}", b"more than ten"))


class TestImages:
    @pytest.mark.parametrize("kind", ["png", "jpeg", "tiff"])
    def test_needs_ocr(self, tmp_path: Path, kind: Any) -> None:
        message = reason(put(tmp_path, f"a.{kind}" if kind != "jpeg" else "a.jpg", picture(kind)))
        assert f"{kind.upper()}, 120 x 80 pixels" in message
        assert "needs OCR, which this tool does not do: convert it to a searchable PDF" in message

    @pytest.mark.parametrize(
        "data",
        [
            picture("png"),
            picture("jpeg"),
            picture("tiff"),
            picture("tiff", compression="tiff_lzw"),
        ],
    )
    @pytest.mark.parametrize("part", [0.005, 0.5, 0.9])
    def test_broken(self, tmp_path: Path, data: Any, part: Any, capfd: Any) -> None:
        message = reason(put(tmp_path, "a.png", data[: max(10, int(len(data) * part))]))
        assert message.startswith("the image is damaged: ")
        assert " at 0x" not in message
        assert capfd.readouterr() == ("", "")


class TestKinds:
    def test_content_decides_over_the_name(self, tmp_path: Path) -> None:
        found = extract(put(tmp_path, "a.txt", pdf("real text")))
        assert found["mime_type"] == "application/pdf"
        assert found["metadata"]["mismatch"].startswith("named or declared as text/plain")
        assert extract(put(tmp_path, "b.xlsx", word()))["mime_type"] == SUPPORTED[".docx"]

    def test_declared_type_counts_where_the_name_says_nothing(self, tmp_path: Path) -> None:
        assert extract(put(tmp_path, "a.bin", b"a;b\n1;2\n"), "text/csv; charset=utf-8")["text"] == "a\tb\n1\t2"

    def test_a_text_may_speak_of_pdf(self, tmp_path: Path) -> None:
        assert extract(put(tmp_path, "a.md", b"Look for %PDF- first."))["mime_type"] == "text/markdown"

    @pytest.mark.parametrize("suffix", [".pdf", ".docx", ".xlsx", ".png", ".jpeg", ".tif"])
    def test_text_under_a_binary_name(self, tmp_path: Path, suffix: str) -> None:
        assert "damaged or wrongly named" in reason(put(tmp_path, f"a{suffix}", b"just words"))

    @pytest.mark.parametrize(
        ("name", "data", "part"),
        [
            ("a.exe", b"MZ....", "(.exe) are not supported. Use one of: .csv .docx"),
            ("noname", b"words", "without a suffix"),
            ("a.docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "old Office format"),
            ("a.docx", word()[:5_000], "ZIP container cannot be opened"),
            ("a.txt", b"", "is empty (0 bytes)"),
            ("a.txt", b" \n\t ", "contains no text"),
        ],
    )
    def test_refused(self, tmp_path: Path, name: str, data: Any, part: Any) -> None:
        assert part in reason(put(tmp_path, name, data))

    def test_zip_of_something_else(self, tmp_path: Path) -> None:
        saved = io.BytesIO()
        with zipfile.ZipFile(saved, "w") as target:
            target.writestr("a.txt", "x")
        assert "ZIP archive" in reason(put(tmp_path, "a.docx", saved.getvalue()))

    def test_missing_file_and_folder(self, tmp_path: Path) -> None:
        assert "cannot be read" in reason(tmp_path / "none.txt")
        assert "cannot be read" in reason(tmp_path)

    def test_file_beyond_the_bound(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tool, "MAX_FILE_BYTES", 3)
        assert "more than 3 are not accepted" in reason(put(tmp_path, "a.txt", b"four"))


def test_importing_loads_no_library() -> None:
    code = (
        "import sys, sandbox.extraction.tool; "
        "print({'pypdf', 'docx', 'openpyxl', 'bs4', 'PIL', 'markdown_it', 'charset_normalizer'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_warning_filters_are_left_as_they_were(tmp_path: Path) -> None:
    path = put(tmp_path, "a.xlsx", workbook(lambda book: book.active.append(["x"])))
    before = list(warnings.filters)
    extract(path)
    assert warnings.filters == before


def judge(path: Path) -> None:
    """Whatever is in the file: a whole answer or an ExtractionError."""
    with suppress(ExtractionError):
        found = extract(path)
        assert set(found) == KEYS
        assert isinstance(found["text"], str)
        assert found["characters"] == len(found["text"])
        assert found["words"] > 0
        assert found["pages"] > 0
        assert "\x00" not in found["text"]
        json.dumps(found, allow_nan=False, ensure_ascii=False).encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tmp_path_factory.mktemp("bytes")


MAGIC = (
    *(b"", b"%PDF-1.4\n", b"PK\x03\x04", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"II*\x00", b"MM\x00*"),
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xff\xfe\x00\x00", b"<html>", b'a;"', b"---\n"),
)


@settings(deadline=None, max_examples=300)
@given(start=st.sampled_from(MAGIC), rest=st.binary(max_size=2_000), suffix=st.sampled_from(sorted(SUPPORTED)))
@example(start=b"", rest=b"\xff" * 100, suffix=".txt")
@example(start=b"%PDF-1.7\n", rest=b"startxref\n0\n%%EOF", suffix=".pdf")
def test_arbitrary_bytes(folder: Path, start: bytes, rest: bytes, suffix: str) -> None:
    judge(put(folder, f"a{suffix}", start + rest))


SMALL = [path for path in sorted(SAMPLES.iterdir()) if path.suffix in SUPPORTED and path.suffix != ".log"]


@settings(deadline=None, max_examples=150)
@given(data=st.data(), sample=st.sampled_from(SMALL))
def test_samples_with_wrong_bytes(folder: Path, data: Any, sample: Path) -> None:
    content = bytearray(sample.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content[at] = data.draw(st.integers(0, 255))
        else:
            del content[at : at + data.draw(st.integers(1, 400))]
            content = content or bytearray(b"x")
    judge(put(folder, f"a{sample.suffix}", bytes(content)))
