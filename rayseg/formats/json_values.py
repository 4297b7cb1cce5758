"""JSON of tools that write small files: decoded whole, and its values checked one by one.

The checks raise `ValueError` with what was expected and found; a reader passes that on to its `Faults`.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from rayseg.formats.faults import BadAnnotation
from rayseg.formats.shapes import COORDINATE_MAX

_SHOWN_CHARS = 80
_SPACES = " \t\r\n"


def parsed(data: bytes, uri: str) -> Any:
    """The value in `data`, UTF-8 with or without its mark. Raises `BadAnnotation` with `uri` and the line."""
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadAnnotation(uri, f"line {line}: expected JSON in UTF-8, found other bytes") from None
    except json.JSONDecodeError as error:
        message = error.msg[:1].lower() + error.msg[1:]
        raise BadAnnotation(uri, f"line {error.lineno}: not the expected JSON: {message}") from None
    except RecursionError:
        raise BadAnnotation(uri, "line 1: not the expected JSON: is nested too deeply") from None
    except ValueError as error:  # a number of thousands of digits
        raise BadAnnotation(uri, f"not the expected JSON: {error}") from None


def or_none(text: str) -> Any:
    """The value of a text; None where it is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def first_keys(data: bytes) -> list[str]:
    """The first keys of the object that `data` begins with, as far as it goes; none where it begins with no object."""
    text = data.decode("utf-8-sig", "ignore")
    keys: list[str] = []
    decode, at = json.JSONDecoder().raw_decode, _past_spaces(text, 0)
    try:
        while text[at] in "{,":
            key, at = decode(text, _past_spaces(text, at + 1))
            keys.append(str(key))
            _, at = decode(text, _past_spaces(text, text.index(":", at) + 1))
            at = _past_spaces(text, at)
    except (ValueError, IndexError, RecursionError):
        return keys
    return keys


def _past_spaces(text: str, at: int) -> int:
    while text[at : at + 1] in _SPACES and at < len(text):
        at += 1
    return at


def number(value: Any, what: str) -> float:
    """A finite number within `COORDINATE_MAX`."""
    if type(value) not in (int, float) or not abs(value) <= COORDINATE_MAX:
        raise ValueError(f"expected {what} as a finite number, found {shown(value)}")
    return float(value)


def points(value: Any, what: str) -> np.ndarray:
    """A list of [x, y] as (K, 2) float64; K may be 0."""
    if not isinstance(value, list):
        raise ValueError(f"expected {what} as a list of [x, y], found {shown(value)}")
    for pair in value:
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError(f"expected {what} as a list of [x, y], found {shown(pair)} in it")
        number(pair[0], f"x in {what}")
        number(pair[1], f"y in {what}")
    return np.array(value, np.float64).reshape(-1, 2)


def side(value: Any, what: str) -> int | None:
    """An image's side in whole pixels; None for null."""
    if value is None:
        return None
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int:
        raise ValueError(f"expected {what} as a whole number, found {shown(value)}")
    return value


def text_of(points_xy: np.ndarray) -> list[list[float]]:
    """(K, 2) as lists of [x, y] for `json.dumps`."""
    return [[float(x), float(y)] for x, y in points_xy.tolist()]


def shown(value: Any) -> str:
    """A value as an error message shows it: not too long."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 3] + "..."
