"""Another joulemeter's `/grid.json`: one node asks a provider, the others read it there."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from joulemeter.errors import GridError
from joulemeter.grid_answers import grams_per_kwh, invalid, json_of
from joulemeter.grid_codec import decode
from joulemeter.grids import Dialogue, HttpRequest, Place, basic
from joulemeter.model import GridQuality, Signal
from joulemeter.settings import Secret, Section, shown

PATH: Final = "/grid.json"
POLL_SECONDS: Final = 300.0
"""Reading it costs the other node next to nothing, and what it knows is at most so much older here."""

TOLD: Final = (GridQuality.MEASURED, GridQuality.ESTIMATED, GridQuality.FORECAST)
"""What a live source can say of a value; how old it is we see ourselves."""
KEYS: Final = {
    "url": "Address of the joulemeter that asks the provider; `/grid.json` is added where it has no path.",
    "username": "Who we are to it, where it asks (HTTP Basic).",
    "password_file": "File with the password; read anew each time.",
    "password_env": "Environment variable with the password, in place of a file.",
    "ca_file": "File with the certificates that its own is checked against, in PEM.",
    "cert_file": "File with a certificate of ours, in PEM, where it asks clients for one.",
    "key_file": "File with the key of `cert_file`.",
}


@dataclass(frozen=True, slots=True)
class Relay:
    """Asks a joulemeter for what it knows of the same zone. Labels stay those of the source that it asked."""

    place: Place
    url: str
    username: str | None = None
    secret: Secret | None = None
    ca_file: Path | None = None
    client_files: tuple[Path, Path] | None = None
    name: str = "relay"
    signal: Signal = Signal.AVERAGE
    poll_seconds: float = POLL_SECONDS

    def ask(self, secret: str, now_timestamp_seconds: float) -> Dialogue:  # noqa: ARG002 - as all sources
        """Ask once."""
        headers: Mapping[str, str] = {} if self.username is None else basic(self.username, secret)
        answer = yield HttpRequest(
            self.url, headers=headers, ca_file=self.ca_file, client_files=self.client_files
        )
        json_of(answer, self.name)
        try:
            answers = decode(answer.body.decode("utf-8"), self.place.zone)
        except ValueError as error:
            raise GridError("invalid", f"grid.relay: {self.url}: {error}") from error
        if not answers:
            raise GridError("no_data", f"grid.relay: {self.url}: it knows nothing from a live source now")
        if len(answers) > 1:
            raise invalid(self.name, "what is known from the one source in use", f"{len(answers)} sources")
        (found,) = answers.values()
        for interval in found.intervals:
            grams_per_kwh(interval.intensity_grams_per_kwh, self.name)
            if interval.quality not in TOLD:
                raise invalid(self.name, f"a quality among {', '.join(TOLD)}", interval.quality)
        return found


class Plugin:
    """Reads `url`, and for one that asks who we are a password or a certificate, and `ca_file`."""

    def configured(self, section: Section, place: Place) -> Relay:
        """Return the relay."""
        url = section.converted("url", "", _url)
        if section.get("url") is None:
            section.problem("url", "missing; give the other joulemeter's address such as http://node-1:9847")
        username, secret = section.text("username", None), section.secret("password")
        if (username is None) != (secret is None):
            section.problem("username", "username and password_file go together; give both or none")
        certificate, key = section.path("cert_file"), section.path("key_file")
        if (certificate is None) != (key is None):
            section.problem("cert_file", "cert_file and key_file go together; give both or none")
        files = None if certificate is None or key is None else (certificate, key)
        return Relay(place, url, username, secret, section.path("ca_file"), files)


def _url(value: object) -> str:
    parts = urlsplit(value) if isinstance(value, str) else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError(
            f"expected an http(s) URL without a password such as http://node-1:9847, got {shown(value)}"
        )
    return parts._replace(path=parts.path if parts.path.strip("/") else PATH).geturl()


PLUGIN = Plugin()
