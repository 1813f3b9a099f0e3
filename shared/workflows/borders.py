"""What crosses from one step to the next: plain JSON, or pydantic's models, checked whenever it crosses."""

import json
import math
import types
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import PydanticSerializationError
from typing_extensions import is_typeddict  # which knows its own

from shared.workflows.errors import BorderError

_PLAIN = (None, type(None), bool, int, float, str, Any, object)
_SCALARS = (None, type(None), bool, int, float, str)
_LISTS, _DICTS = (list, Sequence), (dict, Mapping)
_MOST_MISTAKES = 3


def problem_of(annotation: Any) -> str | None:
    """Why values of that annotation cannot be JSON, in plain words; None if they can."""
    origin, arguments = get_origin(annotation) or annotation, get_args(annotation)
    if annotation in _PLAIN or origin is Literal:
        return None
    if origin in {Annotated, Union, types.UnionType} or origin in _LISTS:
        inner = arguments[:1] if origin is Annotated else arguments
        return next(filter(None, map(problem_of, inner)), None)
    if origin in _DICTS:
        if arguments and arguments[0] is not str:
            return f"{_shown(annotation)} has keys that are no text; JSON's are: use str"
        return problem_of(arguments[1]) if arguments else None
    if is_typeddict(origin) or (isinstance(origin, type) and issubclass(origin, BaseModel)):
        return _problem_of_model(annotation)
    return f"{_shown(annotation)} is not JSON: use dict, list, str, int, float, bool, None or a pydantic model"


def no_list(annotation: Any, name: str) -> str | None:
    """Why there is no list in that field of what is annotated so, or it is none itself, where that is ""; else None."""
    origin = get_origin(annotation) or annotation
    if name and isinstance(origin, type) and issubclass(origin, BaseModel):
        said = {field.alias or field.serialization_alias: field for field in origin.model_fields.values()}
        field = origin.model_fields.get(name) or said.get(name)
        if field is None and name not in origin.model_computed_fields:
            return f"{origin.__name__} has no field {name!r}"
        return no_list(field.annotation, "") if field else None
    if origin in _LISTS and name:
        return "that is a list itself: leave the field empty, as in map_over='parent.'"
    if origin in (_LISTS if not name else _DICTS) or origin not in (*_SCALARS, *_LISTS, *_DICTS):
        return None
    return f"{_shown(annotation)} {'has no fields' if name else 'is no list'}"


def _problem_of_model(model: Any) -> str | None:
    try:
        _adapter(model).json_schema(mode="serialization")
    except PydanticUserError as error:
        return f"{_shown(model)} is a model that cannot be JSON: {str(error).splitlines()[0]}"
    return None


def to_text(value: Any, annotation: Any, what: str, largest: int) -> str:
    """A value as JSON text.

    Args:
        value: a plain one, or of the annotation.
        annotation: what was declared; Any where nothing was.
        what: what it is, as an error names it.
        largest: how many bytes it may have.

    Raises:
        BorderError: it is not JSON, not as declared, or too large.
    """
    if annotation is not Any:
        value = _checked(value, annotation, what)
    elif isinstance(value, BaseModel):
        annotation = type(value)
    try:
        if annotation is not Any:
            value = _adapter(annotation).dump_python(value, mode="json", round_trip=True)
        wrong = next(_not_json(value, what), None)
        text = utf8(json.dumps(value, ensure_ascii=False)) if wrong is None else ""
    except (PydanticSerializationError, RecursionError, ValueError) as error:
        wrong = f"{what} cannot be JSON: {type(error).__name__}"
    if wrong is not None:
        raise BorderError(wrong)
    bounded(text, what, largest)
    return text


def utf8(text: str) -> str:
    """The same, with what UTF-8 does not have written as JSON does: halves of a pair, as PDFs and file names have."""
    return text.encode(errors="backslashreplace").decode()


def bounded(text: str, what: str, largest: int) -> None:
    """Refuse a text of more bytes than that.

    Raises:
        BorderError: it says how many there are.
    """
    if (size := len(text.encode())) > largest:
        raise BorderError(
            f"{what} has {size:,} bytes, and {largest:,} may be (WORKFLOW_OUTPUT_MAX_BYTES); keep it where it belongs, "
            "at the backend say, and hand on what names it"
        )


def from_text(text: str, annotation: Any, what: str) -> Any:
    """The value of that text, of the annotation.

    Raises:
        BorderError: it is not as declared.
    """
    value = json.loads(text)
    return value if annotation is Any else _checked(value, annotation, what)


def _checked(value: Any, annotation: Any, what: str) -> Any:
    try:
        return _adapter(annotation).validate_python(value, by_alias=True, by_name=True)
    except ValidationError as error:
        # Where and why, and not what stood there, which may be of a document.
        found = error.errors(include_input=False, include_url=False, include_context=False)
        told = [f"{'.'.join(map(str, one['loc'])) or 'all of it'}: {one['msg']}" for one in found[:_MOST_MISTAKES]]
        raise BorderError(f"{what} is not {_shown(annotation)}: {'; '.join(told)}") from None


def _not_json(value: Any, where: str) -> Iterator[str]:
    if isinstance(value, str | bool | int | None):
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            yield f"{where} is {value}, a number that JSON does not have"
    elif isinstance(value, list):
        for at, item in enumerate(value):
            yield from _not_json(item, f"{where}[{at}]")
    elif isinstance(value, dict):
        yield from (f"{where} has a key {key!r}; JSON's are text" for key in value if not isinstance(key, str))
        for key, item in value.items():
            yield from _not_json(item, f"{where}[{key!r}]")
    else:
        kind = type(value).__name__
        yield f"{where} is of type {kind}, which is not JSON; make it dict, list, text, a number or a model"


@cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)


def _shown(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation)
