"""What a server's series showed last: kept while pages may still show them, and not for ever. Pure."""

from collections.abc import Hashable, Iterable
from typing import Final, Generic, TypeVar

FORGET_SECONDS: Final = 3600.0
"""Of pages without a series, after which it is dropped."""
LONGEST_GAP_SECONDS: Final = 60.0
"""A longer silence counts as so much: a series is absent from pages that came, not from those that did not."""
MOST_REMEMBERED: Final = 2000
"""Series of one server, twice what a page may show; beyond it those that are absent longest are dropped."""
MOST_DROPPED: Final = 10_000
"""Of which is known that they have been there."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Remembered(Generic[K, V]):
    """The last value of each series, until it was absent from pages for `forget_seconds`.

    A series that comes back afterwards is `dropped`: what it counted meanwhile is not known to be new, so its
    next value is a first look, as on a server's first page.
    """

    def __init__(self, forget_seconds: float = FORGET_SECONDS) -> None:
        self._forget_seconds = forget_seconds
        self._values: dict[K, tuple[float, V]] = {}
        """The absent first, by when they were last there, in seconds of pages."""
        self._dropped: dict[int, None] = {}
        self._seconds = 0.0
        self._at_seconds: float | None = None

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: K) -> V | None:
        """Return the last value, None if there is none."""
        found = self._values.get(key)
        return None if found is None else found[1]

    def dropped(self, key: K) -> bool:
        """Say whether a series that has no last value had one once."""
        return hash(key) in self._dropped

    def clear(self) -> None:
        """Forget that there was anything: the process that counted is gone."""
        self._values.clear()
        self._dropped.clear()

    def turn(self, at_seconds: float, page: Iterable[tuple[K, V]]) -> None:
        """Take in what a page showed, which is younger than the one before, and drop what is long absent."""
        gap_seconds = 0.0 if self._at_seconds is None else at_seconds - self._at_seconds
        self._at_seconds = at_seconds
        self._seconds += min(gap_seconds, LONGEST_GAP_SECONDS)
        for key, value in page:
            self._values.pop(key, None)
            self._values[key] = (self._seconds, value)
        while self._values and self._is_over(next(iter(self._values.values()))[0]):
            self._drop(next(iter(self._values)))

    def _is_over(self, seen_seconds: float) -> bool:
        absent_seconds = self._seconds - seen_seconds
        return absent_seconds > self._forget_seconds or (
            absent_seconds > 0 and len(self._values) > MOST_REMEMBERED
        )

    def _drop(self, key: K) -> None:
        del self._values[key]
        self._dropped.pop(hash(key), None)
        self._dropped[hash(key)] = None
        if len(self._dropped) > MOST_DROPPED:
            del self._dropped[next(iter(self._dropped))]
