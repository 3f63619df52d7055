"""A real Prometheus of our own: filled with the past, run on loopback, asked.

The program is the one on the PATH, or Debian's, as tools/install-tools.sh unpacks it.
"""

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent
UNPACKED: Final = ROOT / ".cache/tools/usr/bin"
PATIENCE_SECONDS: Final = 60.0
ANSWER_SECONDS: Final = 600.0
"""Four weeks by the minute take their time."""
BLOCK_HOURS: Final = 2400
"""promtool reads its input once for each block; with blocks of two hours a month would be read 360 times."""


class PrometheusError(Exception):
    """Prometheus or promtool is not there, does not start, or refuses something."""


def tool(name: str) -> str:
    """Return the path of prometheus or promtool.

    Raises:
        PrometheusError: it is not there; says what to run.
    """
    unpacked = UNPACKED / name
    found = shutil.which(name) or (str(unpacked) if unpacked.exists() else None)
    if found is None:
        raise PrometheusError(
            f"{name} is neither on the PATH nor in .cache/tools; run: tools/install-tools.sh"
        )
    return found


def promtool(*arguments: str | Path) -> None:
    """Run promtool.

    Raises:
        PrometheusError: it is not there, or it failed, with what it said.
    """
    command = [tool("promtool"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PrometheusError(f"{' '.join(command)}: {(done.stdout + done.stderr)[-2000:]}")


def fill(page: Path, data: Path, *, block_hours: int = BLOCK_HOURS) -> None:
    """Turn an OpenMetrics page with timestamps into blocks below a folder of Prometheus's."""
    blocks = f"--max-block-duration={block_hours}h"
    promtool("tsdb", "create-blocks-from", "--quiet", blocks, "openmetrics", page, data)


@contextmanager
def running(data: Path, config: Mapping[str, object] | None = None, *options: str) -> Iterator[str]:
    """Run Prometheus on a folder meanwhile; yields its address.

    Args:
        data: where its blocks are; its configuration and log lie beside.
        config: as in its file; without one it scrapes nothing and has no rules.
        options: of its command line, besides.

    Raises:
        PrometheusError: it is not there, or did not start, with the end of its log.
    """
    data.mkdir(parents=True, exist_ok=True)
    file = data.with_suffix(".yaml")
    file.write_text(json.dumps(config or {}))
    with serving(
        data.with_suffix(".log"),
        f"--config.file={file}",
        f"--storage.tsdb.path={data}",
        "--storage.tsdb.retention.time=100y",
        "--log.level=warn",
        *options,
    ) as url:
        yield url


@contextmanager
def serving(log: Path, *options: str) -> Iterator[str]:
    """Run Prometheus with these options, on a free port of loopback, meanwhile; yields its address.

    Raises:
        PrometheusError: it is not there, or did not start, with the end of its log.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [tool("prometheus"), f"--web.listen-address={address}", *options]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            _wait(process, f"http://{address}", log)
            yield f"http://{address}"
        finally:
            process.terminate()
            process.wait(PATIENCE_SECONDS)


def _wait(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    patience = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < patience and process.poll() is None:
        try:
            urllib.request.urlopen(f"{url}/-/ready", timeout=5).close()  # noqa: S310 - our own
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise PrometheusError(f"prometheus did not start: {log.read_text(errors='replace')[-2000:]}")


def asked(url: str, kind: str, **parameters: object) -> Any:
    """Return the data that Prometheus answers a question of its API with.

    Raises:
        PrometheusError: it refuses, with its reason.
    """
    question = urllib.parse.urlencode(parameters)
    address, body = f"{url}/api/v1/{kind}", None
    if kind.startswith("query"):  # may be longer than an address
        body = question.encode()
    else:
        address = f"{address}?{question}"
    try:
        with urllib.request.urlopen(address, body, ANSWER_SECONDS) as answer:  # noqa: S310 - our own
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        with error:
            raise PrometheusError(f"{kind} {parameters}: {error.read().decode()}") from error
