"""The tables of OPERATIONS.md are those of the code, and it shows when they are not."""

from pathlib import Path
from typing import Any

import pytest

from config.workers import PROFILES, WORKERS
from monitoring.registry import DECLARED
from shared.commands import reference
from shared.config import ClientSettings, FlowerSettings, MonitorSettings, Settings
from tests.fakes import settings

ROOT = Path(__file__).resolve().parents[2]
OPERATIONS = (ROOT / "OPERATIONS.md").read_text()


def test_the_tables_are_in_step() -> None:
    assert reference.rendered(OPERATIONS) == OPERATIONS
    assert {name for name in DECLARED if f"| `{name}` |" in OPERATIONS} == set(DECLARED)
    assert all(f"| `{name}`" in OPERATIONS for name in settings().describe())


@pytest.mark.parametrize(
    ("name", "word"), [("OPERATIONS.md", "workers_pages_total"), ("docker/sample.env", "MONITOR_INTERVAL_SECONDS")]
)
def test_a_page_that_is_not_is_found(name: str, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docker").mkdir()
    wanted = {page: (ROOT / page).read_text() for page in reference.PAGES}
    for page, text in wanted.items():
        (tmp_path / page).write_text(text.replace(word, "another") if page == name else text)
    monkeypatch.setattr(reference, "_ROOT", tmp_path)
    with pytest.raises(SystemExit, match=f"{name} is not .*render_docs"):
        reference.main(["--check"])
    reference.main([])
    assert {page: (tmp_path / page).read_text() for page in reference.PAGES} == wanted
    reference.main(["--check"])


def test_what_has_no_default_is_required_and_secrets_may_stand_in_files() -> None:
    rows: dict[str, Any] = {row[0]: row for row in reference.environment()}
    assert rows["`INTERNAL_SERVICE_API_KEY`, `…_FILE`"][1] == "required"
    assert rows["`INTERNAL_API_BASE_URL`"][1] == "required"
    assert rows["`LEASE_SECONDS`"][1:] == ("15", rows["`LEASE_SECONDS`"][2], "all")
    assert rows["`RABBITMQ_MANAGEMENT_URL`, `…_FILE`"][3] == "monitor"
    assert rows["`FLOWER_BASIC_AUTH`, `…_FILE`"][1::2] == ("required", "flower")
    readers = (Settings, MonitorSettings, FlowerSettings, ClientSettings)
    assert len(rows) == len({name for reader in readers for name in reader.__dataclass_fields__}) + 1


def test_every_port_is_named() -> None:
    assert f"{PROFILES['all'].health_port} `all`" in OPERATIONS
    assert all(f"{worker.health_port} `{name}`" in OPERATIONS.replace("\n", " ") for name, worker in WORKERS.items())
