"""Variables of the environment as typed values: what `Settings` is made of.

A parser takes the stripped text and raises ValueError; its docstring says what it expects, and is what the user reads.
"""

import base64
import html
import ipaddress
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from zoneinfo import ZoneInfo

_LONGEST_ADDRESS = 2_000

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class SettingsError(Exception):
    """The environment does not make valid settings; the message has one line for every mistake."""


class Secret:
    """A value that never shows itself. `reveal()` is the only way to it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself, for the one place that sends it."""
        return self._value

    def forms(self) -> list[str]:
        """The value as it is, and as JSON, HTML, Python and an address write it; none where there is no value."""
        value = self._value
        found = [
            value,
            json.dumps(value)[1:-1],
            html.escape(value),
            repr(value)[1:-1],
            quote(value, safe="", errors="replace"),
        ]
        return found if value else []

    def hide(self, text: str) -> str:
        """That text without the value in it, in any of these forms."""
        for form in self.forms():
            text = text.replace(form, "***")
        return text

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "***" if self._value else "(empty)"


def announce(name: str, value: str) -> None:
    """Set a variable for the libraries of this process and for its children."""
    os.environ[name] = value


def text(raw: str) -> str:
    """text"""
    return raw


def host(raw: str) -> str:
    """the name or the address of a host, without quotes, blanks, user or port"""
    if not raw.isprintable() or any(mark in raw for mark in " \"'/@[]") or raw.count(":") == 1:
        raise ValueError
    return raw


def integer(low: int, high: int) -> Callable[[str], int]:
    """A parser of whole numbers within bounds."""

    def parse(raw: str) -> int:
        value = int(raw)
        if not low <= value <= high:
            raise ValueError
        return value

    parse.__doc__ = f"a whole number from {low} to {high}"
    return parse


def number(low: float, high: float, unit: str = "of seconds ") -> Callable[[str], float]:
    """A parser of numbers within bounds, of seconds unless told otherwise."""

    def parse(raw: str) -> float:
        value = float(raw)
        if not math.isfinite(value) or not low <= value <= high:
            raise ValueError
        return value

    parse.__doc__ = f"a number {unit}from {low:g} to {high:g}"
    return parse


def one_of(*choices: str) -> Callable[[str], str]:
    """A parser of a few words."""

    def parse(raw: str) -> str:
        if raw not in choices:
            raise ValueError
        return raw

    parse.__doc__ = "one of " + ", ".join(choices)
    return parse


def api_address(raw: str) -> str:
    """an http or https address that ends in /internal, without user or query"""
    if not (raw.isascii() and raw.isprintable()) or " " in raw or len(raw) > _LONGEST_ADDRESS:
        raise ValueError
    parts = urlsplit(raw.rstrip("/"))
    if parts.scheme not in {"http", "https"} or not parts.hostname or not parts.path.endswith("/internal"):
        raise ValueError
    if "@" in parts.netloc or parts.query or parts.fragment or parts.port == 0:
        raise ValueError
    return raw.rstrip("/")


def api_key(raw: str) -> Secret:
    """printable ASCII characters without blanks, as an HTTP header can hold them"""
    if not (raw.isascii() and raw.isprintable()) or " " in raw:
        raise ValueError
    return Secret(raw)


def logins(raw: str) -> Secret:
    """user:password, or several with commas between them, in printable ASCII characters without blanks"""
    if not all(user and password for user, _, password in (item.partition(":") for item in raw.split(","))):
        raise ValueError
    return api_key(raw)


def broker_address(raw: str) -> Secret:
    """an address that starts with amqp://, amqps://, redis:// or rediss://, these two with the number of a database"""
    parts = urlsplit(raw)
    if parts.scheme not in {"amqp", "amqps", "redis", "rediss"} or parts.port == 0:
        raise ValueError
    database = parts.path.strip("/")
    if parts.scheme.startswith("redis") and database and not (database.isascii() and database.isdigit()):
        raise ValueError
    return Secret(parts.geturl())  # which has the scheme in lower case


def management_address(raw: str) -> Secret:
    """an http or https address with user and password in it, without query"""
    parts = urlsplit(raw.rstrip("/"))
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
        raise ValueError
    if not (parts.username and parts.password) or parts.query or parts.fragment:
        raise ValueError
    return Secret(parts.geturl())


def pem_file(raw: str) -> str:
    """the path of a readable PEM file"""
    try:
        found = b"-----BEGIN " in Path(raw).read_bytes()
    except OSError as error:
        raise ValueError(raw) from error
    if not found:
        raise ValueError
    return raw


def addresses(raw: str) -> tuple[tuple[str, int], ...]:
    """a list of host:port with commas between them"""
    found = []
    for item in filter(str.strip, raw.split(",")):
        parts = urlsplit(f"//{item.strip()}")
        if not parts.hostname or not parts.port:
            raise ValueError
        found.append((parts.hostname, parts.port))
    return tuple(found)


def networks(raw: str) -> tuple[Network, ...]:
    """a list of networks with commas between them, such as 10.1.0.0/16, fd00::/8"""
    return tuple(ipaddress.ip_network(item.strip()) for item in raw.split(",") if item.strip())


def modules(raw: str) -> tuple[str, ...]:
    """names of Python modules with commas between them, such as invoices.workflows"""
    names = tuple(item.strip() for item in raw.split(",") if item.strip())
    if not all(part.isidentifier() for name in names for part in name.split(".")):
        raise ValueError
    return names


def time_zone(raw: str) -> str:
    """the name of a time zone, such as UTC or Europe/Berlin"""
    try:
        ZoneInfo(raw)
    except (KeyError, OSError) as error:
        raise ValueError(raw) from error
    return raw


def signing_key(raw: str) -> Secret:
    """text, or whsec_ with base64 behind it"""
    if raw.startswith("whsec_"):
        base64.b64decode(raw.removeprefix("whsec_"), validate=True)
    return Secret(raw)


_UNSHOWN = (Secret, api_key, logins, broker_address, management_address, api_address, signing_key)


def takes_file(parse: object) -> bool:
    """Whether a value of that kind is secret, and may stand in a file."""
    return parse in _UNSHOWN and parse is not api_address


def var(
    name: str,
    parse: Callable[[str], Any],
    about: str,
    default: str | None = None,
    *,
    optional: bool = False,
) -> Any:
    """A field of `Settings`: its variable, how it is read, what it is, and its value where it is not set.

    An optional one may stay unset, and is then None, or an empty value of its type where `default` is "".
    """
    return field(metadata={"name": name, "parse": parse, "about": about, "default": default, "optional": optional})


def read(spec: Mapping[str, Any], environ: Mapping[str, str] | None) -> Any:
    """The value of one field, from the environment or from the mapping given.

    Raises:
        SettingsError: it is missing or wrong; with the variable's name and what was expected.
    """
    source = os.environ if environ is None else environ
    name, parse = spec["name"], spec["parse"]
    raw = source.get(name, "").strip() or _from_file(name, source) or spec["default"]
    if not raw and spec["optional"]:
        return None if raw is None else parse(raw)
    if not raw:
        raise SettingsError(f"{name} is not set: {spec['about']}")
    try:
        return parse(raw)
    except ValueError:
        shown = "its value" if parse in _UNSHOWN else repr(raw)
        raise SettingsError(f"{name} must be {parse.__doc__}; {shown} is not") from None


def _from_file(name: str, source: Mapping[str, str]) -> str:
    path = source.get(f"{name}_FILE", "").strip()
    if not path:
        return ""
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        # Not what it names: people write the secret itself there.
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise SettingsError(f"{name}_FILE must be the path of a readable file: {why}") from None
