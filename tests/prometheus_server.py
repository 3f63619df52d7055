"""A real Prometheus over back-filled samples, as a process on loopback."""

import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from daemons import until

OPTIONS = ("--storage.tsdb.retention.time=10y", "--log.level=warn")


def backfill(promtool: str, text: str, folder: Path) -> Path:
    """Write OpenMetrics text into a new database below `folder` and return its path."""
    source, data = folder / "samples.om", folder / "data"
    source.write_text(text)
    done = subprocess.run(
        [promtool, "tsdb", "create-blocks-from", "openmetrics", "--max-block-duration=720h", source, data],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return data


@contextmanager
def serving(prometheus: str, data: Path, *options: str) -> Iterator[str]:
    """Serve a database until the block ends; yields the URL. It scrapes nothing."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config, log = data.parent / "prometheus.yaml", data.parent / "prometheus.log"
    config.write_text("global: {}\n")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(prometheus, f"--config.file={config}", f"--storage.tsdb.path={data}"),
                *(f"--web.listen-address={address}", *OPTIONS, *options),
            ],
            stdout=output,
            stderr=output,
        )
    try:
        until(lambda: process.poll() is not None or _is_ready(f"http://{address}/-/ready"))
        assert process.poll() is None, log.read_text()
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(30)


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False
