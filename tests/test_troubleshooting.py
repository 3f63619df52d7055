"""docs/troubleshooting.md: what it quotes is said by the code, and what the code says to people stands there."""

import ast
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from daemons import run

from dashboards.generate import ROOT
from joulemeter import errors
from joulemeter.runtime.exposition import PATHS

PACKAGE = ROOT / "exporter/joulemeter"
PAGE = (ROOT / "docs/troubleshooting.md").read_text()
VALUE = "\0"
"""In place of what a message is filled with."""
LEFT_OUT = {
    "ConfigError",
    "ExpiredError",
    "JoulemeterError",
    "PrometheusError",
    "ServiceEndedError",
    "TooMuchError",
}
"""`check-config` and `report` say the whole themselves; an expired version is no problem; the rest is the base."""
ERRORS = {name for name in vars(errors) if name.endswith("Error")} - LEFT_OUT
PROBE, ANNOTATIONS = "self._mend.append", ("view.problem", "self.problem")
SHORTEST = 10
MODULES = [
    path
    for path in sorted(PACKAGE.rglob("*.py"))
    if "simulation" not in path.parts and "report" not in str(path.relative_to(PACKAGE))
]


def written(node: ast.AST) -> str:
    """The text of a message as it stands in the code; what is filled in is VALUE."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else VALUE
    if isinstance(node, ast.JoinedStr):
        return "".join(map(written, node.values))
    return VALUE


def texts() -> Iterator[str]:
    """Every text in the package but its docstrings."""
    for path in MODULES:
        nodes = list(ast.walk(ast.parse(path.read_text())))
        docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if isinstance(node, ast.Constant | ast.JoinedStr) and id(node) not in docstrings:
                yield written(node)


def messages() -> Iterator[tuple[str, str]]:
    """Where something is said to people, and what: errors, remedies, and what `probe` and annotations add."""
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            said: list[ast.AST] = []
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                of_pods = path.name == "pods.py" and called in ANNOTATIONS
                said = [*node.args] if called in ERRORS or called == PROBE or of_pods else []
            elif isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "REMEDIES":
                said = [*node.value.values] if isinstance(node.value, ast.Dict) else []
            for one in said:
                text = written(one)
                if " " in text.replace(VALUE, "") and max(map(len, text.split(VALUE))) >= SHORTEST:
                    yield f"{path.relative_to(PACKAGE)}:{node.lineno}", text


def quoted(text: str) -> list[str]:
    """What the first column of the page's tables quotes from us: those headed `says`."""
    found: list[str] = []
    for table in re.findall(r"^\| says \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE):
        for row in table.splitlines():
            found += re.findall(r"`([^`]+)`", row.split(" | ")[0])
    return found


def said_by(quote: str, text: str) -> bool:
    parts = [re.escape(part.strip()) for part in quote.split("...")]
    return re.search(".*".join(parts), text, re.DOTALL) is not None


QUOTES = quoted(PAGE)
TEXTS = list(dict.fromkeys(texts()))
MESSAGES = [pytest.param(text, id=place) for place, text in messages()]


@pytest.mark.parametrize("quote", QUOTES)
def test_what_is_quoted_is_said(quote: str):
    assert len(quote.replace("...", "")) >= SHORTEST, "too short to be looked for"
    assert any(said_by(quote, text) for text in TEXTS)


@pytest.mark.parametrize("text", MESSAGES)
def test_what_is_said_is_on_the_page(text: str):
    assert any(said_by(quote, text) for quote in QUOTES), (
        "write into docs/troubleshooting.md what to do about it"
    )


def test_both_would_find_a_change():
    assert len(QUOTES) > 90
    assert len(MESSAGES) > 90
    assert not any(said_by("no server on the unusual ports ...: name it", text) for text in TEXTS)
    assert not any(said_by(quote, f"{VALUE}: the moon is full; wait a week") for quote in QUOTES)


def test_paths_and_the_words_of_health_are_ours():
    assert set(re.findall(r"`(/[a-z]+)`", PAGE.partition("## It does not start")[0])) <= PATHS.keys()
    assert any(said_by("no beat for ... s", text) for text in TEXTS)


# ---------------------------------------------------------------------------------------------- the real thing

NOBODY = "servers: [{url: 'http://127.0.0.1:1'}]"
BROKEN = {
    "vllm --disable-log-stats": (200, 'python_info{version="3"} 1\nhttp_requests_total 3\n'),
    "llama.cpp without --metrics": (
        501,
        '{"error": {"message": "This server does not support metrics endpoint."}}',
    ),
    "llama.cpp that loads": (503, '{"error": {"message": "Loading model"}}'),
    "a key is wanted": (401, '{"error": {"message": "Invalid API Key"}}'),
    "sglang without --enable-metrics": (404, '{"detail": "Not Found"}'),
    "a web interface": (200, "<!DOCTYPE html><html></html>"),
    "a router": (400, '{"error": {"message": "no model"}}'),
    "nothing yet": (200, ""),
    "a value cut off": (200, "vllm:generation_tokens_total 12"),
    "elsewhere": (308, ""),
    "broken": (500, ""),
    "unknown": (200, "served_total 1\n"),
}


class Server(ThreadingHTTPServer):
    """Answers every question in one way."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.answer = (status, body.encode())
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class Answering(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        status, body = self.server.answer
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def mend(path: Path, configuration: str) -> list[str]:
    """What `probe` says is to mend on a node without GPUs."""
    path.write_text(configuration)
    done = run(
        "probe", "--config", str(path), environment={"JOULEMETER_NVML_LIBRARY": "/nonexistent/nvml.so"}
    )
    assert (done.returncode, done.stderr) == (1, "")
    return [line.strip() for line in done.stdout.partition("To mend\n")[2].splitlines()]


def test_what_probe_says_of_broken_servers_is_on_the_page(tmp_path: Path):
    with ExitStack() as servers:
        running = {name: servers.enter_context(Server(*answer)) for name, answer in BROKEN.items()}
        lines = [f"- {{url: 'http://{server.address}', name: '{name}'}}" for name, server in running.items()]
        lines += [
            f"- {{url: 'https://{running['unknown'].address}', name: plain}}",
            "- {url: 'http://127.0.0.1:1', name: nobody}",
            f"- {{url: 'http://{running['unknown'].address}/a', name: llama, dialect: llamacpp}}",
            f"- {{url: 'http://127.0.0.1:1/b', name: key, authorization: {{credentials_file: {tmp_path}/none}}}}",
            f"- {{url: 'https://127.0.0.1:1/c', name: ca, tls_config: {{ca_file: {tmp_path}/none}}}}",
        ]
        said = mend(tmp_path / "joulemeter.yaml", "servers:\n" + "\n".join(lines))
        for server in running.values():
            server.shutdown()
    assert len(said) == 1 + len(lines)
    assert [line for line in said if not any(said_by(quote, line) for quote in QUOTES)] == []


@pytest.mark.parametrize(
    ("configuration", "problems"),
    [
        ("discovery: {kubernetes: true}", 3),
        (
            "discovery: {kubernetes: true, node_name: a, api_server: 'https://127.0.0.1:1',"
            " service_account_dir: FOLDER, pod_resources_socket: FOLDER/kubelet.sock}",
            4,
        ),
        (
            "grid: {zone: FR, sources: [electricitymaps], electricitymaps: {token_file: FOLDER/none}}\n"
            + NOBODY,
            3,
        ),
        (
            "grid: {zone: FR, sources: [electricitymaps], electricitymaps: {token_env: NOT_THERE}}\n"
            + NOBODY,
            3,
        ),
        ("state_dir: FOLDER/joulemeter.yaml/state\n" + NOBODY, 3),
    ],
)
def test_what_probe_says_of_a_broken_node_is_on_the_page(configuration: str, problems: int, tmp_path: Path):
    said = mend(tmp_path / "joulemeter.yaml", configuration.replace("FOLDER", str(tmp_path)))
    assert len(said) == problems
    assert [line for line in said if not any(said_by(quote, line) for quote in QUOTES)] == []
