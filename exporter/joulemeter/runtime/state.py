"""The state directory: one file of baselines, one writer, and requests that others leave for it.

baselines.json      replaced as a whole (written beside it, fsync, rename), so a reader sees the old or the new
lock                held (flock) by the one process that may write
requests/*.json     what `joulemeter baseline` asks of a running daemon; gone once done
requests/*.refused  what could not be done, and why
"""

import contextlib
import fcntl
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from joulemeter.baseline import Baseline
from joulemeter.baseline_file import decode, decode_dated
from joulemeter.errors import BaselineError, StateError, StateInUseError

log = logging.getLogger(__name__)

FILE: Final = "baselines.json"
LOCK: Final = "lock"
REQUESTS: Final = "requests"
OWN_DIRECTORY: Final = "give the daemon a directory of its own"
MAX_BYTES: Final = 64 * 2**20
"""A baseline that learns takes about 10 kB."""


def read_text(path: Path) -> str:
    """Read a file of baselines.

    Raises:
        BaselineError: it cannot be read, or is far too large.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BaselineError(f"{path}: larger than {MAX_BYTES >> 20} MiB; this is no file of baselines")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BaselineError(f"{path}: cannot be read: {error}; check its name and permissions") from error


def replace(path: Path, text: str) -> None:
    """Write a file so that a reader, or a power failure, leaves the old or the new one whole.

    Raises:
        OSError: the directory cannot be written, or is full; the old file stands.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class StateDirectory:
    """A state directory, by its path; it is made if it is missing. `clock` is Unix time, for people and names."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self.clock = clock

    @property
    def file(self) -> Path:
        """Where the baselines are."""
        return self.path / FILE

    def problem(self) -> str | None:
        """Say why this user could not write here, None if nothing is against it; nothing is made."""
        there = next(path for path in (self.path, *self.path.parents, Path()) if os.access(path, os.F_OK))
        if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
            return None
        reason = f"{there} may not be written by this user" if there.is_dir() else f"{there} is no directory"
        return f"state_dir {self.path}: {reason}; {OWN_DIRECTORY}"

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Be the one writer while the block runs.

        Raises:
            StateError: it cannot be made or written, or another process is the writer.
        """
        try:
            (self.path / REQUESTS).mkdir(parents=True, exist_ok=True)
            lock = (self.path / LOCK).open("a")
        except OSError as error:
            raise StateError(f"state_dir {self.path}: cannot be written: {error}; {OWN_DIRECTORY}") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise StateInUseError(
                    f"state_dir {self.path}: in use by another joulemeter; stop it, or give this one another directory"
                ) from error
            yield

    def load(self) -> list[Baseline]:
        """Read the baselines; none if there is no file yet. A file that cannot be used is kept aside, and said."""
        if not self.file.exists():
            return []
        try:
            return decode(read_text(self.file), source=str(self.file))
        except BaselineError as error:
            aside = self.file.with_name(f"{FILE}.unusable-{self.clock():.0f}")
            try:
                self.file.rename(aside)
            except OSError as problem:
                raise StateError(f"{self.file}: cannot be kept aside: {problem}; move it away") from error
            log.warning("%s; it is kept as %s, and every baseline is learned anew", error, aside.name)
            return []

    def look(self) -> tuple[list[Baseline], float | None]:
        """Read without being the writer: the baselines, and when they were saved (Unix time; None: never).

        Raises:
            BaselineError: the file cannot be used, or not by this user.
        """
        try:
            return decode_dated(read_text(self.file), source=str(self.file))
        except BaselineError as error:
            if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
                return [], None
            raise

    def save(self, text: str) -> None:
        """Write baselines down.

        Raises:
            StateError: it cannot be written; what was there stands.
        """
        try:
            replace(self.file, text)
        except OSError as error:
            raise StateError(
                f"{self.file}: cannot be written: {error}; make room, or check its permissions"
            ) from error

    # ------------------------------------------------------------------------------------------ requests

    def leave(self, request: dict[str, Any]) -> Path:
        """Leave a request for the writer, and return where; the file is gone once it is done."""
        path = self.path / REQUESTS / f"{self.clock():.6f}-{uuid4().hex}.json"
        try:
            replace(path, json.dumps(request))
        except OSError as error:
            raise StateError(
                f"{path}: cannot be written: {error}; run this as the user that the daemon runs as"
            ) from error
        return path

    def requests(self) -> list[tuple[Path, object]]:
        """Return the requests that wait, oldest first; what is no JSON text stands there as text."""
        found: list[tuple[Path, object]] = []
        for path in sorted((self.path / REQUESTS).glob("[!.]*.json")):
            text = read_text(path)
            try:
                found.append((path, json.loads(text)))
            except ValueError:
                found.append((path, text))
        return found

    @staticmethod
    def refused(path: Path) -> Path:
        """Return where the reason stands if a request was refused."""
        return path.with_suffix(".refused")

    def answer(self, refusals: dict[Path, str | None]) -> None:
        """Clear requests away: done (None), or refused with the reason left in their place."""
        for path, reason in refusals.items():
            if reason is not None:
                replace(self.refused(path), f"{reason}\n")
            path.unlink(missing_ok=True)
