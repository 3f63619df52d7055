"""Build, find and load the virtual NVML library (`virtual_nvml.c`)."""

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from joulemeter.errors import JoulemeterError
from joulemeter.simulation import layout

LIBRARY_VARIABLE: Final = "JOULEMETER_NVML_LIBRARY"
"""Names an already built library; joulemeter loads it instead of the driver's."""
STATE_VARIABLE: Final = "JOULEMETER_VIRTUAL_NVML_STATE"
"""Names the state file that the library answers from."""
SONAME: Final = "libnvidia-ml.so.1"

_SOURCE: Final = Path(__file__).with_name("virtual_nvml.c")
# No fused multiply-add: the library's joules are then the same doubles as `NvmlState.energy_joules`.
_FLAGS: Final = (
    "-std=c11",
    "-O2",
    "-fPIC",
    "-shared",
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
    f"-Wl,-soname,{SONAME}",
)


def virtual_library() -> Path:
    """Return the library: the one that `JOULEMETER_NVML_LIBRARY` names, else our own, built if it is not yet.

    Raises:
        JoulemeterError: the named file does not exist, there is no C compiler, or it failed.
    """
    named = os.environ.get(LIBRARY_VARIABLE)
    if not named:
        return build()
    if not Path(named).is_file():
        raise JoulemeterError(
            f"{LIBRARY_VARIABLE}: no file {named!r}; unset it to have the virtual library built"
        )
    return Path(named)


def build(folder: Path | None = None) -> Path:
    """Compile into `folder`, by default the user's cache, unless this very source is there already."""
    key = hashlib.sha256(repr((_SOURCE.read_bytes(), layout.c_header(), _FLAGS)).encode()).hexdigest()[:16]
    target = (folder or _cache_folder()) / key / SONAME
    if not target.is_file():
        try:
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _compile(target)
        except OSError as error:
            remedy = "set XDG_CACHE_HOME to a folder that can be written"
            raise JoulemeterError(
                f"virtual NVML library: cannot build {target}: {error}; {remedy}"
            ) from error
    return target


def load(path: Path) -> None:
    """Load the library into this process, where the soname makes pynvml find it instead of a driver's.

    Raises:
        JoulemeterError: it is no virtual NVML library, or one of another release.
    """
    try:
        library = ctypes.CDLL(str(path))
        ask = library.joulemeter_virtual_nvml_layout
    except (OSError, AttributeError) as error:
        remedy = f"point {LIBRARY_VARIABLE} at a virtual NVML library, or unset it to have one built"
        raise JoulemeterError(f"{path}: not a virtual NVML library: {error}; {remedy}") from error
    ask.restype = ctypes.c_uint64
    if ask() != layout.LAYOUT_ID:
        raise JoulemeterError(
            f"{path}: built for another release of joulemeter; build it again with this one"
        )


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "joulemeter"


def _compile(target: Path) -> None:
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        remedy = f"`apt-get install gcc libc6-dev`, or set {LIBRARY_VARIABLE} to a built {SONAME}"
        raise JoulemeterError(
            f"the virtual NVML library needs a C compiler and there is no cc, gcc or clang: {remedy}"
        )
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        (Path(scratch) / "layout.h").write_text(layout.c_header())
        built = Path(scratch) / SONAME
        command = [compiler, *_FLAGS, "-I", scratch, "-o", str(built), str(_SOURCE), "-lm", "-lpthread"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own words only
        if done.returncode:
            remedy = "`apt-get install gcc libc6-dev` installs a compiler and the C headers"
            raise JoulemeterError(f"{compiler} failed on {_SOURCE.name}: {done.stderr.strip()}; {remedy}")
        built.replace(target)  # whole, or not at all: another process may be building it too


def main(arguments: Sequence[str]) -> int:
    """Build the library; with an argument, put a copy there (for images). Prints where it is."""
    try:
        built = build()
    except JoulemeterError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if arguments:
        output = Path(arguments[0])
        output.parent.mkdir(parents=True, exist_ok=True)
        built = Path(shutil.copyfile(built, output))
    sys.stdout.write(f"{built}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
