"""Reads JSON into frozen dataclasses: types are strict, and every fault is found at once.

A class that derives from `Record` states each field with `reads` and a reader, which checks a value
and returns what is kept of it. Plain functions and not pydantic's models, whose import and making
take longer than everything else that a short command does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any, ClassVar, TypeVar

from opentau_prep.config.faults import Fault, JsonPath, fault_error, nearest, shown
from opentau_prep.config.refs import Origin

__all__ = [
    "FAULTY",
    "Faults",
    "Reader",
    "Record",
    "anything",
    "array",
    "choice",
    "flag",
    "mapping",
    "number",
    "optional",
    "reads",
    "record",
    "text",
    "whole",
]

FAULTY: Any = object()
"""What a reader returns for a value whose fault it has reported."""


class Faults(list[tuple[JsonPath, str]]):
    """Where and what is wrong, as readers find it.

    Attributes:
        family: The records of one file: a field of one is recognized in another.
    """

    family: Sequence[type[Record]] = ()


Reader = Callable[[object, JsonPath, Faults], Any]
Check = Callable[[Any], Any]
After = Callable[[Any, Mapping[str, Any]], None]
R = TypeVar("R", bound="Record")


@dataclass(frozen=True)
class Record:
    """A part of a configuration, as written; the fields' readers refuse what does not fit.

    Attributes:
        given: The fields that were given, whatever their value.
    """

    PLACE: ClassVar[str] = "the file"
    """What a message calls the part that such fields belong to."""

    given: frozenset[str] = field(default=frozenset(), kw_only=True, repr=False, compare=False)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the fields that the file may have, in order."""
        return tuple(_fields(cls))

    @classmethod
    def without_effect(cls) -> frozenset[str]:
        """Return the names of the fields that are accepted but change nothing here."""
        return frozenset(
            name for name, each in _fields(cls).items() if each.metadata["read"] is anything
        )

    @classmethod
    def fault_of(cls, sound: Mapping[str, Any]) -> str | None:
        """Return what is wrong with fields taken together; `sound` lacks those with faults."""
        return None

    @classmethod
    def parse(
        cls: type[R],
        value: object,
        *,
        family: Sequence[type[Record]] = (),
        origin: Origin | None = None,
        path: JsonPath = (),
        file: Any = None,
    ) -> R:
        """Return the record that a JSON value is.

        Args:
            value: The value.
            family: Records of the same file, whose fields are recognized in the wrong place.
            origin: Which file each part of the value came from.
            path: JSON path of the value in its document.
            file: The file that was named.

        Raises:
            ConfigError: Naming every fault with its file, JSON path, what was found and expected.
        """
        faults = Faults()
        faults.family = family
        found = record(cls)(value, (), faults)
        if faults:
            where = origin or Origin(None)
            listed = [Fault(where.at(at).file, (*path, *at), text) for at, text in faults]
            raise fault_error(listed, file=file)
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return the fields of the file, defaults filled in."""
        return {
            name: [each.as_dict() if isinstance(each, Record) else each for each in value]
            if isinstance(value := getattr(self, name), tuple)
            else value
            for name in self.names()
        }


def reads(read: Reader, default: Any = None, *, after: After | None = None) -> Any:
    """State a field of a record.

    Args:
        read: Its reader.
        default: Its value where the file is silent; `...` where it must not be.
        after: Called with its value and those of the fields before it that are sound (and `raw`,
            the whole object as given); raises ValueError.
    """
    metadata = {"read": read, "after": after, "required": default is ...}
    return field(default=None if default is ... else default, metadata=metadata)


_FIELDS: dict[Any, dict[str, Field[Any]]] = {}


def _fields(cls: type[Record]) -> dict[str, Field[Any]]:
    """Return the fields that a file may have."""
    if cls not in _FIELDS:
        _FIELDS[cls] = {each.name: each for each in fields(cls) if "read" in each.metadata}
    return _FIELDS[cls]


def record(cls: type[R]) -> Callable[[object, JsonPath, Faults], R]:
    """Return a reader of records."""

    def read(value: object, path: JsonPath, faults: Faults) -> Any:
        if not isinstance(value, dict):
            return _refuse(value, "an object", path, faults)
        before = len(faults)
        found = _read_fields(cls, value, path, faults)
        wrong = cls.fault_of(found)
        if wrong is not None:
            faults.append((path, wrong))
        known = _fields(cls)
        for name in value:
            if name not in known:
                faults.append(((*path, name), _unknown_field(name, cls, faults.family)))
        return FAULTY if len(faults) > before else cls(**found, given=frozenset(value))

    return read


def _read_fields(
    cls: type[Record], value: dict[str, Any], path: JsonPath, faults: Faults
) -> dict[str, Any]:
    """Return the values of the fields that are sound."""
    sound: dict[str, Any] = {}
    for name, each in _fields(cls).items():
        if name in value:
            found = each.metadata["read"](value[name], (*path, name), faults)
        elif each.metadata["required"]:
            found = FAULTY
            faults.append(((*path, name), "required, but missing"))
        else:
            found = each.default
        after = each.metadata["after"]
        if found is not FAULTY and after is not None:
            found = _passed(found, after, {**sound, "raw": value}, (*path, name), faults)
        if found is not FAULTY:
            sound[name] = found
    return sound


def _passed(
    value: Any, after: After, sound: Mapping[str, Any], path: JsonPath, faults: Faults
) -> Any:
    try:
        after(value, sound)
    except ValueError as error:
        faults.append((path, str(error)))
        return FAULTY
    return value


def _unknown_field(name: str, cls: type[Record], family: Sequence[type[Record]]) -> str:
    for other in family:
        if other is not cls and name in other.names():
            return f"unknown field here: {shown(name)} is a field of {other.PLACE}"
    near = nearest(name, cls.names())
    if near:
        return f'unknown field {shown(name)}; the nearest known field is "{near}"'
    without_effect = cls.without_effect()
    listed = ", ".join(known for known in cls.names() if known not in without_effect)
    return f"unknown field {shown(name)}; known are {listed}"


def _refuse(value: object, expected: str, path: JsonPath, faults: Faults) -> Any:
    faults.append((path, f"found {shown(value)}, expected {expected}"))
    return FAULTY


def _checked(value: Any, check: Check | None, path: JsonPath, faults: Faults) -> Any:
    if check is None:
        return value
    try:
        return check(value)
    except ValueError as error:
        faults.append((path, str(error)))
        return FAULTY


def anything(value: object, path: JsonPath, faults: Faults) -> Any:
    """Take any value: of a field that changes nothing that is made here."""
    return value


def flag(value: object, path: JsonPath, faults: Faults) -> Any:
    """Read true or false."""
    return value if isinstance(value, bool) else _refuse(value, "true or false", path, faults)


def optional(read: Reader) -> Reader:
    """Return a reader that takes null as well."""
    return lambda value, path, faults: None if value is None else read(value, path, faults)


def text(check: Check | None = None) -> Reader:
    """Return a reader of strings."""

    def read(value: object, path: JsonPath, faults: Faults) -> Any:
        if not isinstance(value, str):
            return _refuse(value, "a string", path, faults)
        return _checked(value, check, path, faults)

    return read


def choice(*names: str) -> Reader:
    """Return a reader of one of some strings."""
    expected = " or ".join(f'"{name}"' for name in names)

    def read(value: object, path: JsonPath, faults: Faults) -> Any:
        known = isinstance(value, str) and value in names
        return value if known else _refuse(value, expected, path, faults)

    return read


def whole(
    *, above: int | None = None, at_least: int | None = None, below: int | None = None
) -> Reader:
    """Return a reader of whole numbers; true and 1.0 are none."""
    outside = _outside(above=above, at_least=at_least, below=below)

    def read(value: object, path: JsonPath, faults: Faults) -> Any:
        if isinstance(value, bool) or not isinstance(value, int):
            return _refuse(value, "a whole number", path, faults)
        wrong = outside(value)
        return value if wrong is None else _refuse(value, wrong, path, faults)

    return read


def number(
    *, above: float | None = None, at_least: float | None = None, below: float | None = None
) -> Reader:
    """Return a reader of finite numbers, as floats."""
    outside = _outside(above=above, at_least=at_least, below=below)

    def read(value: object, path: JsonPath, faults: Faults) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return _refuse(value, "a number", path, faults)
        try:
            found = float(value)
        except OverflowError:
            found = math.inf
        wrong = outside(found) if math.isfinite(found) else "a finite number"
        return found if wrong is None else _refuse(value, wrong, path, faults)

    return read


def _outside(
    *, above: float | None = None, at_least: float | None = None, below: float | None = None
) -> Callable[[float], str | None]:
    def wrong(value: float) -> str | None:
        if below is not None and value >= below:
            return f"a number below {below}"
        if at_least is not None and value < at_least:
            return f"a number of at least {at_least}"
        if above is not None and value <= above:
            return f"a number above {above}"
        return None

    return wrong


def array(item: Reader, check: Check | None = None) -> Reader:
    """Return a reader of lists, as tuples."""

    def read(value: object, path: JsonPath, faults: Faults) -> Any:
        if not isinstance(value, list | tuple):
            return _refuse(value, "a list", path, faults)
        before = len(faults)
        found = tuple(item(each, (*path, index), faults) for index, each in enumerate(value))
        return FAULTY if len(faults) > before else _checked(found, check, path, faults)

    return read


def mapping(item: Reader, key: Check | None = None) -> Reader:
    """Return a reader of objects; `key` checks a key and returns what is kept of it."""

    def read(value: object, path: JsonPath, faults: Faults) -> Any:
        if not isinstance(value, dict):
            return _refuse(value, "an object", path, faults)
        before = len(faults)
        found = {
            _checked(name, key, (*path, name), faults): item(each, (*path, name), faults)
            for name, each in value.items()
        }
        return FAULTY if len(faults) > before else found

    return read
