"""`python -m benchmarks.web_access`: what TLS and passwords cost the daemon and its scraper; four minutes a round."""

import argparse
import base64
import http.client
import ssl
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, cast

import bcrypt
import trustme

from benchmarks.processes import cpu_seconds, memory_mib
from benchmarks.report import Row, percentile, table
from benchmarks.rig import PROMETHEUS, Page, Rig, Running, Scraper

PASSWORD: Final = "correct horse battery staple"  # noqa: S105 - that of the benchmark
COST: Final = 10
"""What htpasswd's documentation and exporter-toolkit's suggest."""
LOGIN: Final = {"Authorization": "Basic " + base64.b64encode(f"prometheus:{PASSWORD}".encode()).decode()}
WARM_UP_SECONDS: Final = 15
SCRAPES: Final = 150


@dataclass(frozen=True, slots=True)
class Way:
    """One way to be asked: the text of the web configuration, and what who asks brings along."""

    name: str
    text: str | None
    headers: Mapping[str, str]
    tls: ssl.SSLContext | None


class Asker(Scraper):
    """Asks as Prometheus does, in one of the ways."""

    def __init__(self, port: int, way: Way) -> None:
        super().__init__(port)
        self._headers = way.headers
        if way.tls is not None:
            self._connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=way.tls)

    def get(self, headers: Mapping[str, str] = PROMETHEUS) -> Page:
        """See `Scraper.get`."""
        return super().get({**headers, **self._headers})

    def get_anew(self) -> Page:
        """Ask over a new connection."""
        self._connection.close()
        return self.get()


def ways(folder: Path) -> list[Way]:
    """Write a certificate; return the four ways."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(str(folder / "tls.pem"))
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(COST)).decode()
    users = f"basic_auth_users: {{prometheus: {hashed}}}\n"
    tls = "tls_server_config: {cert_file: tls.pem, key_file: tls.pem}\n"
    return [
        Way("as it comes", None, {}, None),
        Way("password", users, LOGIN, None),
        Way("TLS", tls, {}, trusted),
        Way("TLS and password", tls + users, LOGIN, trusted),
    ]


def measured(running: Running, asker: Asker) -> dict[str, float]:
    """Scrape over a kept connection, then over new ones; milliseconds and MiB."""
    time.sleep(WARM_UP_SECONDS)
    cpu_begun, begun = cpu_seconds(running.pid), time.monotonic()
    kept = [_later(asker.get).seconds * 1000 for _ in range(SCRAPES)]
    anew = [_later(asker.get_anew).seconds * 1000 for _ in range(SCRAPES)]
    cpu = cpu_seconds(running.pid) - cpu_begun
    return {
        "kept connection, median|ms": percentile(kept, 50),
        "kept connection, 90th percentile|ms": percentile(kept, 90),
        "new connection, median|ms": percentile(anew, 50),
        "new connection, 90th percentile|ms": percentile(anew, 90),
        "processor time, 10 scrapes a second|% of a core": 100 * cpu / (time.monotonic() - begun),
        "resident memory|MiB": memory_mib(running.pid).resident,
    }


def _later(get: Callable[[], Page]) -> Page:
    time.sleep(0.1)
    return get()


def main() -> int:
    """Measure all ways, one after the other, in each round."""
    parser = argparse.ArgumentParser("benchmarks.web_access", description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    rounds = parser.parse_args().rounds
    found: dict[tuple[str, str], list[float]] = {}
    with Rig() as rig:
        rig.draw()
        for way in ways(rig.folder) * rounds:
            more = {}
            if way.text is not None:
                (rig.folder / "web.yaml").write_text(way.text, encoding="utf-8")
                more = {"web_config_file": str(rig.folder / "web.yaml")}
            ports = next(iter(rig.ports.values()))
            with rig.joulemeter(way.name, ports, more=more, connect=partial(Asker, way=way)) as running:
                for what, value in measured(running, cast("Asker", running.scraper)).items():
                    found.setdefault((what, way.name), []).append(value)
    rows = [
        Row(f"{name}: {what.partition('|')[0]}", what.partition("|")[2], tuple(values))
        for (what, name), values in sorted(found.items(), key=lambda each: each[0][0])
    ]
    sys.stdout.write(table(rows) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
