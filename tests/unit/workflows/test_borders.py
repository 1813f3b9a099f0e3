"""What crosses from one step to the next: the same on every engine, for only text crosses."""

import datetime as dt
import json
import re
from collections import OrderedDict
from decimal import Decimal
from typing import Annotated, Any, Literal
from typing import TypedDict as PlainTypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, Json, SecretStr, computed_field
from typing_extensions import TypedDict

from shared.workflows.borders import from_text, problem_of, to_text
from shared.workflows.errors import BorderError

MOST = 10_000
SECRET = "the secret of the document"


class Inner(BaseModel):
    n: int


class Page(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: str = Field(alias="pageText")
    inner: Inner | None = None
    when: dt.date | None = None
    raw: Json[list[int]] = []

    @computed_field
    def length(self) -> int:
        return len(self.text)


class Named(TypedDict):
    name: str


class Old(PlainTypedDict):
    name: str


class Loose(BaseModel):
    anything: Any = None


PAGE = Page(pageText="x", inner=Inner(n=1), when=dt.date(2026, 1, 2), raw="[1, 2]")  # type: ignore[arg-type] # as JSON

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(value=json_values)
def test_plain_json_comes_out_as_it_went_in(value: Any) -> None:
    text = to_text(value, Any, "it", 10**9)
    text.encode()
    assert from_text(text, Any, "it") == value


def test_text_that_utf8_does_not_have_crosses_too() -> None:
    """Half a surrogate pair, as texts of PDFs and names of files have it; Redis would refuse it."""
    value = {"a\udc80": "x\ud83d"}
    text = to_text(value, Any, "it", MOST)
    text.encode()
    assert from_text(text, Any, "it") == value


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Page, PAGE),
        (list[Page], [PAGE, PAGE]),
        (Page | None, None),
        (Page | None, PAGE),
        (dict[str, Page], {"a": PAGE}),
        (dict[str, list[Page | None]], {"a": [PAGE, None]}),
        (Named, {"name": "x"}),
        (Literal["a", "b"], "a"),
        (Annotated[int, Field(gt=0)], 3),
        (int | str, "3"),
        (float, 1.5),
        (Any, OrderedDict(a=1)),
    ],
)
def test_what_is_declared_comes_out_as_it_went_in(annotation: Any, value: Any) -> None:
    assert problem_of(annotation) is None
    assert from_text(to_text(value, annotation, "it", MOST), annotation, "it") == value


def test_a_model_that_nobody_declared_is_told_by_its_names() -> None:
    assert json.loads(to_text(PAGE, Any, "it", MOST))["text"] == "x"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({SECRET}, "it is of type set"),
        (SECRET.encode(), "it is of type bytes"),
        ([1, {"at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC)}], r"it\[1\]\['at'\] is of type datetime"),
        ([float("nan")], r"it\[0\] is nan"),
        (float("-inf"), "it is -inf"),
        ({1: SECRET}, "it has a key 1; JSON's are text"),
        ((1, SECRET), "it is of type tuple"),
        (Decimal(1), "it is of type Decimal"),
        (object(), "it is of type object"),
        ([10**5_000], "it cannot be JSON: ValueError"),
        (Loose(anything=object()), "it cannot be JSON: PydanticSerializationError"),
        (Loose(anything=b"\xff"), "it cannot be JSON: "),
        (SECRET * 1_000, r"it has 26,002 bytes, and 10,000 may be \(WORKFLOW_OUTPUT_MAX_BYTES\)"),
        ("ä" * 5_000, "it has 10,002 bytes"),
    ],
)
def test_what_is_no_json_is_refused_in_plain_words_and_without_it(value: Any, said: str) -> None:
    with pytest.raises(BorderError, match=f"^{said}") as refused:
        to_text(value, Any, "it", MOST)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"a": inner}], ids=["list", "dict"])
@pytest.mark.parametrize("round_about", [False, True])
def test_what_is_too_deep_or_has_no_end_is_refused(wrap: Any, round_about: bool) -> None:
    value: Any = [1]
    if round_about:
        value.append(value)
    for _ in range(3_000):
        value = wrap(value)
    with pytest.raises(BorderError, match="it cannot be JSON: RecursionError"):
        to_text(value, Any, "it", MOST)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Page, {"pageText": 1}),
        (Page, Inner(n=1)),
        (Page, {"pageText": "x", "inner": {"n": SECRET}}),
        (list[Page], PAGE),
        (list[int], [1, SECRET]),
        (int, None),
        (str, 1),
        (Literal["a"], SECRET),
        (Named, {"name": 5}),
    ],
)
def test_what_is_not_as_declared_is_refused_without_it(annotation: Any, value: Any) -> None:
    with pytest.raises(BorderError, match=r"^the output is not ") as refused:
        to_text(value, annotation, "the output", MOST)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        (set[str], "set\\[str\\] is not JSON"),
        (bytes, "bytes is not JSON"),
        (dict[int, str], "keys that are no text"),
        (tuple[int, int], "is not JSON"),
        (list[set[int]], "set\\[int\\] is not JSON"),
        (int | bytes, "bytes is not JSON"),
        (list[Old], "typing_extensions.TypedDict"),
    ],
)
def test_what_cannot_be_json_is_told_before_anything_runs(annotation: Any, said: str) -> None:
    problem = problem_of(annotation)
    assert problem is not None
    assert re.search(said, problem)


def test_a_secret_is_not_shown() -> None:
    class Login(BaseModel):
        password: SecretStr

    assert SECRET not in to_text(Login(password=SecretStr(SECRET)), Any, "it", MOST)
