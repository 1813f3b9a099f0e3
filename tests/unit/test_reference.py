"""The tables of OPERATIONS.md are those of the code, and it shows when they are not."""

import re
from pathlib import Path
from typing import Any

import pytest

from config.workers import PROFILES, WORKERS
from monitoring.registry import DECLARED
from shared.commands import reference
from shared.config import FlowerSettings, MonitorSettings, Settings
from tests.fakes import settings

ROOT = Path(__file__).resolve().parents[2]
OPERATIONS = (ROOT / "OPERATIONS.md").read_text()


def test_the_tables_are_in_step() -> None:
    assert reference.rendered(OPERATIONS) == OPERATIONS
    assert {name for name in DECLARED if f"| `{name}` |" in OPERATIONS} == set(DECLARED)
    assert all(f"| `{name}`" in OPERATIONS for name in settings().describe())


def test_a_table_that_is_not_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "OPERATIONS.md"
    page.write_text(re.sub("workers_pages_total", "workers_sheets_total", OPERATIONS))
    monkeypatch.setattr(reference, "_PAGE", page)
    with pytest.raises(SystemExit, match="render_docs"):
        reference.main(["--check"])
    reference.main([])
    assert page.read_text() == OPERATIONS
    reference.main(["--check"])


def test_what_has_no_default_is_required_and_secrets_may_stand_in_files() -> None:
    rows: dict[str, Any] = {row[0]: row for row in reference.environment()}
    assert rows["`INTERNAL_SERVICE_API_KEY`, `…_FILE`"][1] == "required"
    assert rows["`INTERNAL_API_BASE_URL`"][1] == "required"
    assert rows["`LEASE_SECONDS`"][1:] == ("15", rows["`LEASE_SECONDS`"][2], "all")
    assert rows["`RABBITMQ_MANAGEMENT_URL`, `…_FILE`"][3] == "monitor"
    assert rows["`FLOWER_BASIC_AUTH`, `…_FILE`"][1::2] == ("required", "flower")
    readers = (Settings, MonitorSettings, FlowerSettings)
    assert len(rows) == len({name for reader in readers for name in reader.__dataclass_fields__}) + 1


def test_every_port_is_named() -> None:
    assert f"{PROFILES['all'].health_port} `all`" in OPERATIONS
    assert all(f"{worker.health_port} `{name}`" in OPERATIONS.replace("\n", " ") for name, worker in WORKERS.items())
