"""Metrics pages: pick the lines we need, then let prometheus-client parse them."""

import re
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self, TypeVar

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample as ParsedSample

from joulemeter.errors import PageError

MAX_SERIES: Final = 1000
"""More series of ours than this on one page is not a server we can follow."""
MAX_LINE_CHARACTERS: Final = 8192
"""The parser's time grows with the square of a line's length; real lines of ours stay below 1200."""
MAX_CHARACTERS: Final = 300_000
"""Of all our lines of a page: a thousand of usual length. Lines of 8 kB, all new, would take seconds to parse."""
MAX_VALUE: Final = 1e18
"""A million tokens a second for thirty thousand years."""

LINE: Final = re.compile(r"^[ \t]*([a-zA-Z_:][a-zA-Z0-9_:]*).*$", re.MULTILINE)
SERIES: Final = re.compile(r"[ \t]*[a-zA-Z_:][a-zA-Z0-9_:]*(?:\{[^#]*\})?")
"""A series in a line that has no exemplar."""
REMEMBERED_BYTES: Final = 8 * 1024 * 1024
"""Of series; the 58 of a vLLM server take an eighth of a megabyte."""
NAME: Final = re.compile(r"^[ \t]*([a-zA-Z_:][a-zA-Z0-9_:]*)", re.MULTILINE)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Series:
    """What a sample is of.

    `key` names it so that pages of one server agree, in whatever order and content type they list it; `name` is
    folded (`:` is `_`), for servers and libraries disagree about colons.
    """

    key: str
    name: str = field(compare=False)
    labels: Mapping[str, str] = field(compare=False)
    _told: dict[Callable[["Series"], Any], Any] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, written_name: str, labels: Mapping[str, str]) -> Self:
        """Return the series that a parser found."""
        name = fold(written_name)
        return cls(series_key(name, labels), name, labels)

    def told(self, what: Callable[["Series"], T]) -> T:
        """Return what a function tells of this series; it is asked once, for a page has the same series every second.

        The answer goes when the series does, and one series never gets another's.
        """
        try:
            answer: T = self._told[what]
        except KeyError:
            answer = self._told[what] = what(self)
        return answer

    @property
    def size_bytes(self) -> int:
        """What it takes at most: its labels, its key, and what is told of it, which is about two keys more."""
        labels = sum(100 + _size_bytes(name) + _size_bytes(value) for name, value in self.labels.items())
        return labels + 3 * _size_bytes(self.key) + 1000


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample."""

    series: Series
    value: float


def _size_bytes(text: str) -> int:
    return 60 + len(text) * (1 if text.isascii() else 4)


def fold(name: str) -> str:
    """Write a name as it is compared: prometheus-client 0.23 to 0.26 lose colons in OpenMetrics samples."""
    return name.replace(":", "_")


def names(body: str) -> frozenset[str]:
    """Return the folded name of every sample; of a body that is no page, words that look like one."""
    return frozenset(fold(name) for name in set(NAME.findall(body)))


def series_key(name: str, labels: Mapping[str, str]) -> str:
    """Write a series in one way, however its labels are ordered, and no other series in that way.

    Names of labels may be any text in quotes, so those that are no plain words are written in quotes here too.
    """
    inner = ",".join(
        f"{key if key.isidentifier() else repr(key)}={value!r}" for key, value in sorted(labels.items())
    )
    return f"{name}{{{inner}}}" if inner else name


def pick(body: str, families: frozenset[str]) -> tuple[Sample, ...]:
    """Return the page's samples whose folded name is in `families`, in page order, each series once.

    Parsing all of a 50 kB page takes prometheus-client 8 to 19 ms; finding our lines and parsing those takes
    half a millisecond (benchmarks/pages.py). TYPE lines are left out on purpose: with them the parser renames
    counters that do not end in `_total`, and refuses llama.cpp's.

    Args:
        body: text format 0.0.4 or 1.0.0, or OpenMetrics (timestamps and exemplars are ignored).
        families: folded sample names, suffixes included.

    Raises:
        PageError: `too_many_series`; `bad_value` if a line we need does not parse, is cut off or comes
            twice with different values, or if its value is not a finite number from 0 to MAX_VALUE. Messages
            name the line.
    """
    found: dict[str, Sample] = {}
    count = characters = 0
    for match in LINE.finditer(body):
        if fold(match[1]) not in families:
            continue
        count += 1
        characters += match.end() - match.start()
        if count > MAX_SERIES or characters > MAX_CHARACTERS:
            raise PageError(
                "too_many_series",
                f"more than {MAX_SERIES} series or {MAX_CHARACTERS} characters of them, like {match[1]}: one server has"
                " a few per engine; point the URL at one server, not at an aggregate of many",
            )
        sample = _sample(body, match)
        twin = found.setdefault(sample.series.key, sample)
        if twin.value != sample.value:
            raise _bad(body, match, f"the same series was {twin.value:g} further up")
    return tuple(found.values())


def _sample(body: str, match: re.Match[str]) -> Sample:
    """Parse the line that `match` found."""
    line = match[0]
    if match.end() == len(body):  # a page ends with a line feed; without it the number may have lost digits
        raise _bad(body, match, "the page is cut off here")
    if len(line) > MAX_LINE_CHARACTERS:
        raise _bad(
            body, match, f"the line has {len(line)} characters, at most {MAX_LINE_CHARACTERS} are read"
        )
    written, _, number = line.rpartition(" ")
    series = None if "_" in number else _seen.get(written) or _seen.read(written)
    try:
        if series is not None:
            value = float(number)
        else:
            parsed = _parsed(line)
            series, value = Series.of(parsed.name, parsed.labels), float(parsed.value)
    except (ValueError, IndexError) as error:  # IndexError: the parser's own, on a label without a name
        raise _bad(body, match, "it does not parse as a sample") from error
    if not 0 <= value <= MAX_VALUE:  # NaN fails this too
        raise _bad(body, match, f"expected a finite number from 0 to {MAX_VALUE:g}")
    return Sample(series, value)


class Seen:
    """Series by how they are written; those that came first go first, once all are larger than `most_bytes`.

    A page has the same series every second, and parsing them again was two fifths of what the daemon cost.
    """

    def __init__(self, most_bytes: int = REMEMBERED_BYTES) -> None:
        self._series: dict[str, Series] = {}
        self.get: Final = self._series.get
        self._sizes: deque[int] = deque()
        self._bytes = 0
        self._most_bytes = most_bytes

    def read(self, written: str) -> Series | None:
        """Return a series that is new here; None if something else than a series is written there too."""
        series = _series(written)
        if series is not None:
            self._series[written] = series
            self._sizes.append(_size_bytes(written) + series.size_bytes)
            self._bytes += self._sizes[-1]
            while self._bytes > self._most_bytes:
                del self._series[next(iter(self._series))]
                self._bytes -= self._sizes.popleft()
        return series


def _series(written: str) -> Series | None:
    if not SERIES.fullmatch(written):
        return None
    try:
        parsed = _parsed(f"{written} 0")
    except (ValueError, IndexError):
        return None
    whole = parsed.value == 0 and parsed.timestamp is None
    return Series.of(parsed.name, parsed.labels) if whole else None


_seen: Final = Seen()


def _parsed(line: str) -> ParsedSample:
    """Let prometheus-client parse a sample's line. Raises ValueError, IndexError."""
    (family,) = text_string_to_metric_families(line)
    (parsed,) = family.samples
    return parsed


def _bad(body: str, match: re.Match[str], problem: str) -> PageError:
    number = body.count("\n", 0, match.start()) + 1
    return PageError(
        "bad_value",
        f"line {number}: {match[0].strip()[:200]!r}: {problem};"
        " if it stays, ask the server's own page with curl and report the line to its project",
    )
