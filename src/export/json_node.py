# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""JSON from elsewhere, read value by value: what is not as expected is named with its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from src.model_utils.errors import InputError

LARGEST = 2**53 - 1
"""Whole numbers that every reader of JSON keeps."""


class JsonNode:
    """A JSON value.

    Args:
        value: parsed.
        source: the file, for messages.
        advice: the end of every message.
        place: where in the file, such as "detector.inputs.0".
    """

    def __init__(self, value: Any, source: object, advice: str, place: str = "") -> None:  # noqa: ANN401
        self.value, self.source, self.advice, self.place = value, source, advice, place

    def refuse(self, problem: str) -> NoReturn:
        """Raise InputError: this value has a problem."""
        where = f"{self.place} " if self.place else ""
        raise InputError(f"{self.source}: {where}{problem}; {self.advice}")

    def at(self, key: str) -> JsonNode:
        """The value of a key of this object, which must have it."""
        if not isinstance(self.value, dict) or key not in self.value:
            self.refuse(f"has no {key}")
        return self._inner(self.value[key], key)

    def items(self) -> list[JsonNode]:
        """The values of this list, which must not be empty."""
        if not isinstance(self.value, list) or not self.value:
            self.refuse("is not a list of values")
        return [self._inner(value, str(index)) for index, value in enumerate(self.value)]

    def fields(self) -> list[tuple[str, JsonNode]]:
        """The keys and values of this object."""
        if not isinstance(self.value, dict):
            self.refuse("is not an object")
        return [(key, self._inner(value, key)) for key, value in self.value.items()]

    def text(self, choices: Sequence[str] = ()) -> str:
        """A text that is not empty, one of `choices` if there are any."""
        if not isinstance(self.value, str) or not self.value:
            self.refuse("is not a text")
        if choices and self.value not in choices:
            self.refuse(f"is {self.value!r:.60}, not {' or '.join(choices)}")
        return self.value

    def flag(self) -> bool:
        """True or false."""
        if not isinstance(self.value, bool):
            self.refuse("is not true or false")
        return self.value

    def whole(self, least: int = 1, most: int = LARGEST) -> int:
        """A whole number."""
        if type(self.value) is not int or not least <= self.value <= most:
            self.refuse(f"is {self.value!r:.60}, not a whole number from {least} to {most}")
        return self.value

    def number(self, least: float, most: float) -> float:
        """A finite number."""
        value = self.value
        right = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not right or not least <= value <= most:  # the limits are finite, NaN is neither
            self.refuse(f"is {value!r:.60}, not a number from {least:g} to {most:g}")
        return float(value)

    def shape(self, *sides: int | None) -> tuple[int, ...]:
        """The sides of an array, those given or, for None, any."""
        found = tuple(side.whole() for side in self.items())
        wanted = tuple(mine if side is None else side for side, mine in zip(sides, found))
        if len(found) != len(sides) or found != wanted:
            shown = ", ".join("any" if side is None else str(side) for side in sides)
            self.refuse(f"is {list(found)}, not [{shown}]")
        return found

    def _inner(self, value: Any, key: str) -> JsonNode:  # noqa: ANN401
        shown = key if key.isprintable() else ascii(key)
        place = f"{self.place}.{shown}" if self.place else shown
        return JsonNode(value, self.source, self.advice, place)
