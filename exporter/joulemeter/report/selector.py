"""Which exporters a report is about: label matchers as in PromQL. Pure."""

import re
from collections.abc import Sequence
from typing import Final

from joulemeter.errors import ConfigError
from joulemeter.report.sources import OVERWRITTEN, OWN
from joulemeter.settings import shown

MATCHER: Final = re.compile(r'\s*([A-Za-z_][A-Za-z0-9_]*)\s*(=~|!~|!=|=)\s*("(?:[^"\\\n]|\\.)*")\s*')


def selector(texts: Sequence[str]) -> str:
    """Return the matchers of all options as `{...}`, "" for none.

    Raises:
        ConfigError: one cannot be read, or selects part of what an exporter shows: then sums would not add up.
    """
    problems: list[str] = []
    matchers = [matcher for text in texts for matcher in _matchers(text, problems)]
    if problems:
        raise ConfigError(problems)
    return f"{{{', '.join(matchers)}}}" if matchers else ""


def _matchers(text: str, problems: list[str]) -> list[str]:
    found: list[str] = []
    rest = text.strip().removeprefix("{").removesuffix("}")
    while rest.strip():
        match = MATCHER.match(rest)
        after = rest[match.end() :] if match else ""
        if match is None or (after and not after.startswith(",")):
            problems.append(
                f'--selector: expected matchers such as cluster="a", job=~"gpu.*", got {shown(text)}'
            )
            return []
        name, sign, value = match.groups()
        if name.removeprefix(OVERWRITTEN) in OWN:
            problems.append(
                f"--selector: {name} is a label of single series; select whole exporters (cluster, job, instance),"
                " or the sums would not add up. Every model has a row of its own"
            )
        found.append(f"{name}{sign}{value}")
        rest = after.removeprefix(",")
    return found
