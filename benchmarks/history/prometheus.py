"""A real Prometheus over blocks of the past: one on the PATH, or Debian's, as tools/install-tools.sh unpacks it."""

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent.parent
UNPACKED: Final = ROOT / ".cache/tools/usr/bin"
PATIENCE_SECONDS: Final = 60.0
WHOLE_RUN: Final = "2400h"
"""One block for all: promtool reads its input once for each."""


class PrometheusError(Exception):
    """Prometheus did not start, or refused a query."""


def found(program: str) -> str | None:
    """Return where prometheus or promtool is, or None."""
    unpacked = UNPACKED / program
    return shutil.which(program) or (str(unpacked) if unpacked.exists() else None)


def fill(page: Path, data: Path) -> None:
    """Turn a page with timestamps into blocks below a folder of Prometheus's."""
    command = [
        found("promtool") or "promtool",
        *("tsdb", "create-blocks-from", "--quiet", "--max-block-duration", WHOLE_RUN),
        *("openmetrics", str(page), str(data)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PrometheusError(f"{page}: promtool made no blocks of it: {done.stderr[-2000:]}")


@contextmanager
def running(data: Path, rule_files: Sequence[Path] = ()) -> Iterator[str]:
    """Run Prometheus on a folder meanwhile; yields its address."""
    config = data.with_suffix(".yaml")
    config.write_text(
        json.dumps(
            {"global": {"evaluation_interval": "5s"}, "rule_files": [str(path) for path in rule_files]}
        )
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    log = data.with_suffix(".log")
    command = [
        found("prometheus") or "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        "--storage.tsdb.retention.time=100y",
        f"--web.listen-address={address}",
    ]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            _wait(process, f"http://{address}", log)
            yield f"http://{address}"
        finally:
            process.terminate()
            process.wait(timeout=30)


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    patience = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < patience and process.poll() is None:
        try:
            urllib.request.urlopen(f"{url}/-/ready", timeout=5).close()  # noqa: S310 - our own
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
        else:
            return
    raise PrometheusError(f"Prometheus did not start: {log.read_text()[-2000:]}")


def asked(url: str, kind: str, **parameters: object) -> Any:
    """Return the data that Prometheus answers with.

    Raises:
        PrometheusError: it refuses, with its reason.
    """
    address = f"{url}/api/v1/{kind}?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:  # noqa: S310 - our own
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        raise PrometheusError(f"{parameters.get('query', kind)}: {error.read().decode()}") from error
