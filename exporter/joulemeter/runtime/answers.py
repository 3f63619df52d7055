"""What came back over HTTP: bodies read within bounds, and what a status other than 200 means for us."""

import json
import zlib
from http import HTTPStatus
from typing import Final, NoReturn

import aiohttp

from joulemeter.errors import PageError, ServerUnreachableError

MAX_BODY_BYTES: Final = 16 * 1024 * 1024
CHUNK_BYTES: Final = 64 * 1024
ANY_ZLIB_HEADER: Final = zlib.MAX_WBITS | 32
REMEDIES: Final = {
    400: "check the URL and its query (a llama.cpp router wants ?model=NAME)",
    401: "set authorization.credentials_file to a file with the server's key",
    403: "check the key in authorization.credentials_file",
    404: "check the URL's path; some servers need a flag to serve metrics (--metrics, --enable-metrics)",
    501: "start the server with metrics switched on (llama.cpp: --metrics)",
}


async def read_body(response: aiohttp.ClientResponse, place: str) -> bytes:
    """Read a body, never holding more than MAX_BODY_BYTES of it, compressed or not."""
    if (response.content_length or 0) > MAX_BODY_BYTES:
        _refuse_size(place)
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in {"identity", "gzip", "deflate"}:
        raise PageError(
            "not_metrics", f"{place}: body in encoding {encoding[:20]!r}, not asked for; turn compression off"
        )
    inflate = None if encoding == "identity" else zlib.decompressobj(ANY_ZLIB_HEADER)
    body = bytearray()
    received_bytes = 0
    async for chunk in response.content.iter_chunked(CHUNK_BYTES):
        received_bytes += len(chunk)
        try:
            body += inflate.decompress(chunk, MAX_BODY_BYTES + 1 - len(body)) if inflate else chunk
        except zlib.error as error:
            raise PageError("not_metrics", f"{place}: body is not {encoding} as it says: {error}") from error
        if max(len(body), received_bytes) > MAX_BODY_BYTES:
            _refuse_size(place)
    if inflate and not inflate.eof:
        raise aiohttp.ClientPayloadError("compressed body ends early")
    return bytes(body)


def _refuse_size(place: str) -> NoReturn:
    limit = f"{MAX_BODY_BYTES // 1024**2} MiB"
    raise PageError("too_large", f"{place}: body of more than {limit}; is this the URL of a metrics page?")


async def refuse_status(response: aiohttp.ClientResponse, place: str) -> NoReturn:
    """Say what a status other than 200 means for us, and what to do about it."""
    status = response.status
    if status in {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.BAD_REQUEST}:
        said = _error_message(await read_body(response, place))
        if status == HTTPStatus.SERVICE_UNAVAILABLE and "loading" in said.lower():
            raise ServerUnreachableError(f"{place}: still loading its model; it will answer when it is ready")
        if status == HTTPStatus.BAD_REQUEST and "not loaded" in said.lower():
            raise ServerUnreachableError(f"{place}: the router has not loaded this model; nothing to mend")
    if status // 100 == 3:  # noqa: PLR2004 - the class of redirects
        location = _without_query(response.headers.get("Location", ""))
        raise PageError(
            "redirect", f"{place}: redirects to {location}, not followed; set the server's url to it"
        )
    remedy = REMEDIES.get(status, "look into the server's log")
    raise PageError("http_status", f"{place}: HTTP {status}; {remedy}")


def _error_message(body: bytes) -> str:
    """Return `error.message` of the JSON error of llama.cpp and OpenAI-like servers, "" of anything else."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    error = answer.get("error") if isinstance(answer, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return message if isinstance(message, str) else ""


def _without_query(location: str) -> str:
    """Shorten a redirect's target for a message; its query may hold a secret."""
    return repr(location.partition("?")[0][:200])
