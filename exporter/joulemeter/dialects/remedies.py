"""Why a page is not one we can read, and what to do about it."""

from typing import Final

GENERIC: Final = (
    "for a server that joulemeter does not know, set `dialect: generic` and give the names under `metrics:`"
)
PYTHON_SERVER: Final = frozenset({"python_info", "http_requests_total"})
"""Together they are what a vLLM page still shows when its own series are off."""


def why_not(body: str, names: frozenset[str]) -> str:
    """Say what `body`, whose folded sample names are `names`, is instead of a known server's page."""
    start = body[:200].strip()
    if not start:
        return "the page is empty; some servers show no series before their first request, so send one"
    if start.startswith("<"):
        return f"this is HTML ({start[:40]!r}); is this the metrics URL? It usually ends in /metrics"
    if start.startswith(('{"', "{\n", "{}", "[")):
        return (
            f"this is JSON ({start[:40]!r}); is this the metrics URL? TensorRT-LLM's is /prometheus/metrics"
        )
    if names >= PYTHON_SERVER:
        return (
            "Python's and the web server's own series are here, but none of a known inference server;"
            f" if this is vLLM, it was started with --disable-log-stats: start it without; {GENERIC}"
        )
    if any(name.startswith("ray_") for name in names):
        return "this is a Ray node's page; Ray shows vLLM's series after the first request, so send one"
    shown = ", ".join(sorted(names)[:5]) or repr(start[:40])
    return f"no series of a known inference server among {len(names)} names ({shown}); {GENERIC}"
