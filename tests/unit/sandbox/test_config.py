"""The reference backend's settings: secrets in files, as the workers have them, and all mistakes at once."""

from pathlib import Path

import pytest

from sandbox.config import Config, ConfigError


def test_a_secret_may_stand_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("a-key-from-a-file\n")
    monkeypatch.setenv("INTERNAL_SERVICE_API_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.setenv("CACHE_REDIS_PASSWORD_FILE", "/dev/null")  # as compose has what nobody set
    config = Config.from_env()
    assert config.api_key == "a-key-from-a-file"
    assert config.redis.password is None
    monkeypatch.setenv("INTERNAL_SERVICE_API_KEY", "the-key-itself")
    assert Config.from_env().api_key == "the-key-itself"


def test_a_file_that_is_not_there_is_named_with_all_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL_FILE", "/nowhere/at/all")
    monkeypatch.setenv("SANDBOX_THREADS", "one")
    with pytest.raises(ConfigError) as mistakes:
        Config.from_env()
    assert str(mistakes.value).split("; ") == [
        "INTERNAL_SERVICE_API_KEY is required: the key the workers send as Bearer",
        "DATABASE_URL_FILE must be the path of a readable file",
        "SANDBOX_THREADS must be a number, not 'one'",
    ]
