"""LeadConduit's rules: which events `GET /events?rules=` selects.

A rule is ``{lhv, op, rhv}``: the left value is looked up in the event's ``vars``, or else in
the event itself. Text is compared whatever its case; numbers and their text are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import orjson
import re2

from auditstore.web.api.problems import FieldFault, Refused

#: Whether a rule, or all of a set, is true of an event's fields.
Rule = Callable[[Mapping[str, Any]], bool]

_MOST_RULES: Final = 100
_MOST_DEPTH: Final = 8
_MISSING: Final = object()


@dataclass(slots=True)
class _Count:
    rules: int = 0


def parse_rules(text: str) -> Rule:
    """The rules of a request, all of which must be true; Refused says which one is wrong."""
    try:
        given = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        _refuse("rules", f"not JSON: {error}")
    if not isinstance(given, list):
        _refuse("rules", "not an array")
    return _all(given, "rules", _Count(), 1, "and")


def _all(given: list[Any], place: str, count: _Count, depth: int, op: str) -> Rule:
    if depth > _MOST_DEPTH:
        _refuse(place, f"nested more than {_MOST_DEPTH} deep")
    rules = [_one(each, f"{place}[{i}]", count, depth) for i, each in enumerate(given)]
    if op == "or":
        return lambda fields: any(rule(fields) for rule in rules)
    return lambda fields: all(rule(fields) for rule in rules)


def _one(given: Any, place: str, count: _Count, depth: int) -> Rule:
    if not isinstance(given, dict):
        _refuse(place, "not an object")
    count.rules += 1
    if count.rules > _MOST_RULES:
        _refuse(place, f"more than {_MOST_RULES} rules")
    if isinstance(given.get("rules"), list):
        op = given.get("op", "and")
        if op not in {"and", "or"}:
            _refuse(f"{place}.op", "a rule set has and or or")
        return _all(given["rules"], f"{place}.rules", count, depth + 1, op)
    lhv, op = given.get("lhv"), given.get("op")
    if not isinstance(lhv, str) or not lhv:
        _refuse(f"{place}.lhv", "missing")
    if not isinstance(op, str) or op.lower() not in OPERATORS:
        _refuse(f"{place}.op", f"write one of: {', '.join(OPERATORS)}")
    rhv = given.get("rhv")
    if any("{{" in text for text in (lhv, rhv) if isinstance(text, str)):
        _refuse(place, "templates are not evaluated here; write the value")
    test = _test(op.lower(), rhv, given, f"{place}.rhv")
    path = lhv.split(".")
    also = given.get("rule_set")
    if also is None:
        return lambda fields: test(_looked_up(fields, path))
    rest = _one(also, f"{place}.rule_set", count, depth)
    return lambda fields: test(_looked_up(fields, path)) and rest(fields)


def _test(op: str, rhv: Any, given: Mapping[str, Any], place: str) -> Callable[[Any], bool]:
    if op in _UNARY:
        return _UNARY[op]
    if "rhv" not in given:
        _refuse(place, "missing")
    negated = _INVERSE.get(op)
    plain = negated or op
    if plain == "matches pattern":
        test = _pattern(rhv, place)
    else:
        if plain == "is between":
            numbers = [_number(each) for each in rhv] if isinstance(rhv, list) else []
            if len(numbers) != 2 or None in numbers:
                _refuse(place, "write an array of two numbers")
        compare = _BINARY[plain]
        test = lambda value: compare(value, rhv)  # noqa: E731  # one of two ways to make it
    return (lambda value: not test(value)) if negated else test


def _refuse(place: str, reason: str) -> NoReturn:
    raise Refused(
        422, "invalid-rules", f"{place}: {reason}",
        hint='Rules look like [{"lhv": "lead.state", "op": "is equal to", "rhv": "TX"}].',
        errors=[FieldFault(field=f"query.{place}", message=reason)],
    )  # fmt: skip


# --- values -----------------------------------------------------------------------


def _looked_up(fields: Mapping[str, Any], path: list[str]) -> Any:
    variables = fields.get("vars")
    found = _at(variables, path)
    return _at(fields, path) if found is _MISSING else found


def _at(value: Any, path: list[str]) -> Any:
    for part in path:
        if not isinstance(value, dict) or part not in value:
            return _MISSING
        value = value[part]
    # A typed value: what it was understood as, or else what was sent.
    if isinstance(value, dict) and "raw" in value:
        normal = value.get("normal")
        return value["raw"] if normal is None else normal
    return value


def _is_blank(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return value is _MISSING or value is None or value in ([], {})


def _text(value: Any) -> str:
    """A number as it is usually written; of text only case and white space do not count."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    if isinstance(value, list | dict):
        # Has no text, so it equals nothing; and writing a deep one would not end well.
        return f"\0{id(value)}"
    return str(value).strip().lower()


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _many(value: Any) -> list[str]:
    if isinstance(value, str) and "," in value:
        value = value.split(",")
    return [_text(each) for each in value] if isinstance(value, list) else [_text(value)]


# --- operators --------------------------------------------------------------------


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, list) or isinstance(right, list):
        return sorted(_many(left)) == sorted(_many(right))
    return left is not _MISSING and left is not None and _text(left) == _text(right)


def _compared(test: Callable[[float, float], bool]) -> Callable[[Any, Any], bool]:
    def compare(left: Any, right: Any) -> bool:
        one, other = _number(left), _number(right)
        return one is not None and other is not None and test(one, other)

    return compare


def _included_in(left: Any, right: Any) -> bool:
    return not _is_blank(left) and bool(set(_many(left)) & set(_many(right)))


def _includes(left: Any, right: Any) -> bool:
    if _is_blank(left):
        return False
    wanted = [_text(each) for each in right] if isinstance(right, list) else [_text(right)]
    if isinstance(left, list):
        return bool({_text(each) for each in left} & set(wanted))
    text = _text(left)
    return any(each in text for each in wanted)


def _between(left: Any, right: Any) -> bool:
    number, bounds = _number(left), [_number(each) for each in right]
    low, high = (each if each is not None else 0.0 for each in bounds)
    return number is not None and min(low, high) <= number <= max(low, high)


def _pattern(rhv: Any, place: str) -> Callable[[Any], bool]:
    # RE2 takes linear time whatever the pattern is; Python's own could be made to hang.
    if not isinstance(rhv, str) or len(rhv) > 1000:
        _refuse(place, "write a regular expression of at most 1000 characters")
    options = re2.Options()
    options.case_sensitive, options.log_errors, options.max_mem = False, False, 1 << 20
    try:
        pattern = re2.compile(rhv, options)
    except re2.error as error:
        _refuse(place, f"not a regular expression: {error}")
    return lambda value: (
        not _is_blank(value)
        and not isinstance(value, list | dict)
        and pattern.search(str(value)) is not None
    )


_UNARY: Final[Mapping[str, Callable[[Any], bool]]] = {
    "is blank": _is_blank,
    "is not blank": lambda value: not _is_blank(value),
    "is true": lambda value: value is not _MISSING and _text(value) in {"true", "yes", "1"},
    "is false": lambda value: value is not _MISSING and _text(value) in {"false", "no", "0"},
}
_BINARY: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "is equal to": _equal,
    "is less than": _compared(lambda one, other: one < other),
    "is less than or equal to": _compared(lambda one, other: one <= other),
    "is greater than": _compared(lambda one, other: one > other),
    "is greater than or equal to": _compared(lambda one, other: one >= other),
    "is included in": _included_in,
    "includes": _includes,
    "is between": _between,
}
_INVERSE: Final = {
    "is not equal to": "is equal to", "is not included in": "is included in",
    "does not include": "includes", "is not between": "is between",
    "does not match pattern": "matches pattern",
}  # fmt: skip
#: Every operator that a rule may have.
OPERATORS: Final = (*_BINARY, "matches pattern", *_INVERSE, *_UNARY)
