"""Typed values out of a mapping, every problem collected: what `config` reads with."""

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

Value = TypeVar("Value")
Default = TypeVar("Default")

SHOWN_CHARACTERS: Final = 80
KIND_NAMES: Final = {list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}


def shown(value: object) -> str:
    """Write a value for a message, cut where it gets long."""
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def suggestion(value: object, known: Iterable[str]) -> str:
    """Say what may have been meant, else everything that is known."""
    names = sorted(known)
    close = difflib.get_close_matches(str(value), names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"


@dataclass(frozen=True, slots=True)
class Secret:
    """Where a secret is: in a file, or in an environment variable. Read anew each time, for it may be rotated."""

    file: Path | None = None
    variable: str | None = None


class Section:
    """One mapping of the configuration.

    Every method that finds something unusable adds a problem (place, value, what is expected) and returns the
    default, so that one run finds them all. A key without a value (`key:` or `key: null`) counts as left out.
    The keys asked for are the known ones: `finish` reports the others.

    Args:
        raw: what stands there; anything but a mapping or nothing is a problem.
        place: where it stands, "" for the top.
        problems: grows by what is wrong.
    """

    def __init__(self, raw: object, place: str, problems: list[str]) -> None:
        self._place = place
        self._problems = problems
        self._asked: set[str] = set()
        self._raw: Mapping[object, object] = {}
        if isinstance(raw, Mapping):
            self._raw = raw
        elif raw is not None:  # the value itself stays out of the message: it may be a pasted secret
            kind = KIND_NAMES.get(type(raw), "something else")
            self._problems.append(
                f"{place or 'configuration'}: expected a mapping of keys to values, got {kind}"
            )

    def place(self, key: str) -> str:
        """Return the full path of a key of this section."""
        return f"{self._place}.{key}" if self._place else key

    def problem(self, key: str, message: str) -> None:
        """Report a problem with a key."""
        self._problems.append(f"{self.place(key)}: {message}")

    def get(self, key: str) -> object:
        """Return what stands under a key as it is; None if nothing does."""
        self._asked.add(key)
        return self._raw.get(key)

    def section(self, key: str) -> "Section":
        """Open the mapping under a key; a missing one is an empty one."""
        return Section(self.get(key), self.place(key), self._problems)

    def converted(self, key: str, default: Default, convert: Callable[[object], Value]) -> Value | Default:
        """Return what `convert` makes of a value; the text of its ValueError is the problem."""
        value = self.get(key)
        if value is None:
            return default
        try:
            return convert(value)
        except ValueError as error:
            self.problem(key, str(error))
            return default

    def items(self, key: str, default: Sequence[object] = ()) -> Sequence[object]:
        """Return the list under a key."""
        value = self.get(key)
        if value is None:
            return default
        if not isinstance(value, list | tuple):
            self.problem(key, f"expected a list, got {shown(value)}")
            return default
        return value

    def item(self, key: str, index: int) -> "Section":
        """Open the mapping at a place of the list under a key."""
        return Section(self.items(key)[index], f"{self.place(key)}[{index}]", self._problems)

    def number(self, key: str, default: Default, *, low: float, high: float) -> float | Default:
        """Return a number from `low` to `high`, both included."""
        value = self.get(key)
        if value is None:
            return default
        if isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high:
            return float(value)
        self.problem(key, f"expected a number from {low:g} to {high:g}, got {shown(value)}")
        return default

    def flag(self, key: str, *, default: bool) -> bool:
        """Return true or false."""
        value = self.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.problem(key, f"expected true or false, got {shown(value)}")
            return default
        return value

    def text(self, key: str, default: Default) -> str | Default:
        """Return printable text that is not blank, without the blanks around it."""
        value = self.get(key)
        if value is None:
            return default
        if isinstance(value, str) and value.strip() and value.strip().isprintable():
            return value.strip()
        hint = "" if isinstance(value, str | list | dict) else "; put it in quotes"  # NO is a boolean in YAML
        self.problem(key, f"expected text, got {shown(value)}{hint}")
        return default

    def path(self, key: str) -> Path | None:
        """Return a path; nothing is opened."""
        text = self.text(key, None)
        return None if text is None else Path(text)

    def secret(self, key: str) -> Secret | None:
        """Return where a secret is: `<key>_file` names a file that holds it, `<key>_env` an environment variable."""
        file, variable = self.path(f"{key}_file"), self.text(f"{key}_env", None)
        if file is not None and variable is not None:
            self.problem(f"{key}_env", f"{key}_file is given too; keep one of them")
        return None if file is None and variable is None else Secret(file, variable)

    def choice(self, key: str, default: str, known: Collection[str]) -> str:
        """Return one of a few words."""
        value = self.text(key, default)
        if value not in known:
            self.problem(key, f"unknown value {shown(value)}; {suggestion(value, known)}")
            return default
        return value

    def finish(self) -> None:
        """Report the keys that nobody asked for: a typo, or an option of another release."""
        for key in self._raw:
            if key not in self._asked:
                self.problem(str(key), f"unknown key; {suggestion(key, self._asked)}")
