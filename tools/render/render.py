"""Draw the dashboards with real data, to be looked at: `make render`, or `python tools/render/render.py`.

The demo's page is scraped by a real Prometheus with the project's rules, every query of every panel is put to it,
and the answers are drawn by the components that Grafana itself is built from (`@grafana/ui`) in a headless Chromium.
The pictures and the data stay in `.cache/render`; `--redraw` draws changed dashboards from the data of the last
recording. A query without an answer is named; so is what Chromium's console says.

What is not Grafana here: queries are put and panels placed by this script and `draw.jsx`, not by Grafana's server and
page. Variables stand at All. It draws what the dashboards use: time series, stats and bar gauges.

It needs npm and, where Chromium or Prometheus is not on the PATH, Debian: their packages are unpacked below
`.cache`, which needs no root and starts no service.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parent.parent
CACHE: Final = ROOT / ".cache/render"
NODE: Final = CACHE / "node"
CHROMIUM: Final = CACHE / "chromium"
DATA: Final = CACHE / "prometheus"
RECORDING: Final = CACHE / "recording.json"
GENERATED: Final = ROOT / "dashboards/generated"

SCRAPE_SECONDS: Final = 5
"""As in deploy/compose."""
PAGE_WIDTH: Final = 1440
CELL_HEIGHT: Final = 30
CELL_MARGIN: Final = 8
HEADER_HEIGHT: Final = 56
"""The last three as in draw.jsx."""


def main() -> None:
    """Record if asked to, then draw every dashboard."""
    parser = argparse.ArgumentParser(description="Draw the dashboards with data of the demo.")
    parser.add_argument("--seconds", type=int, default=600, help="how long to record (default: %(default)s)")
    parser.add_argument("--redraw", action="store_true", help="draw the last recording again")
    arguments = parser.parse_args()
    install()
    if not arguments.redraw:
        record(arguments.seconds)
    bundle()
    start, end = json.loads(RECORDING.read_text())
    with prometheus({}) as url:
        for path in sorted((GENERATED / "grafana").glob("*.json")):
            say(str(draw(json.loads(path.read_text()), url, start, end)))


def say(text: str) -> None:
    """Write a line; progress is all this tool has to say."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def install() -> None:
    """Bring what draws: npm's packages, Chromium and the libraries it lacks here, Prometheus."""
    run(ROOT / "tools/install-tools.sh")
    NODE.mkdir(parents=True, exist_ok=True)
    wanted = (HERE / "package.json").read_bytes()
    installed = NODE / "package.json"
    if not (NODE / "node_modules").is_dir() or installed.read_bytes() != wanted:
        say("installing npm packages (600 MB) ...")
        installed.write_bytes(wanted)
        run("npm", "install", "--no-audit", "--no-fund", "--loglevel=error", cwd=NODE)
    if not shutil.which("chromium") and not CHROMIUM.is_dir():
        say("unpacking Chromium ...")
        packages = CACHE / "packages"
        (packages / "partial").mkdir(parents=True, exist_ok=True)
        options = ["--download-only", "--no-install-recommends", "-o", f"Dir::Cache::archives={packages}"]
        run("apt-get", "install", "-qq", "-y", "-o", "Debug::NoLocking=1", *options, "chromium")
        for package in packages.glob("*.deb"):
            run("dpkg", "-x", package, CHROMIUM)
        shutil.rmtree(packages)


def record(seconds: int) -> None:
    """Let a new Prometheus scrape a new demo for a while; remember from when to when."""
    shutil.rmtree(DATA, ignore_errors=True)
    page = free_address()
    scrape = {
        "job_name": "joulemeter",
        "honor_labels": True,
        "static_configs": [{"targets": [page], "labels": {"cluster": "demo", "instance": "gpu-node-1"}}],
    }
    demo = [Path(sys.executable).parent / "joulemeter", "demo", "--listen", page]
    with started(demo, CACHE / "demo.log"), prometheus({"scrape_configs": [scrape]}) as url:
        patience = time.monotonic() + 60
        while not ask(url, "query", query="joulemeter_model_energy_joules_total"):
            if time.monotonic() > patience:
                sys.exit(f"render: the demo shows no model's energy; see {CACHE / 'demo.log'}")
            time.sleep(1)
        start = time.time()
        say(f"recording the demo for {seconds} s ...")
        time.sleep(seconds)
        RECORDING.write_text(json.dumps([start, time.time()]))


@contextmanager
def prometheus(extra: Mapping[str, Any]) -> Iterator[str]:
    """Run Prometheus on the recorded data with the project's rules; yield its address once it is ready."""
    DATA.mkdir(parents=True, exist_ok=True)
    settings = {
        "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": "15s"},
        "rule_files": [str(GENERATED / "prometheus/rules.yaml")],
    }
    config = CACHE / "prometheus.yaml"
    config.write_text(yaml.safe_dump({**settings, **extra}))
    address = free_address()
    command = [
        shutil.which("prometheus") or ROOT / ".cache/tools/usr/bin/prometheus",  # from install-tools.sh
        f"--config.file={config}",
        f"--storage.tsdb.path={DATA}",
        f"--web.listen-address={address}",
    ]
    with started(command, CACHE / "prometheus.log"):
        url = f"http://{address}"
        for _ in range(60):
            try:
                urllib.request.urlopen(f"{url}/-/ready", timeout=5).close()  # noqa: S310 - our own
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.5)
        else:
            sys.exit(f"render: Prometheus did not start; see {CACHE / 'prometheus.log'}")
        yield url


@contextmanager
def started(command: list[Any], log: Path) -> Iterator[None]:
    """Run a program meanwhile, and end it afterwards."""
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)  # noqa: S603 - our own
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=30)


def ask(url: str, kind: str, **parameters: object) -> list[Any]:
    """Put a query to Prometheus; leave the program with its error if it has one."""
    address = f"{url}/api/v1/{kind}?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:  # noqa: S310 - our own
            result: list[Any] = json.load(answer)["data"]["result"]
            return result
    except urllib.error.HTTPError as error:
        sys.exit(f"render: {parameters['query']}: {error.read().decode()}")


def draw(dashboard: dict[str, Any], url: str, start: float, end: float) -> Path:
    """Answer every panel's queries and take the picture."""
    all_values = {
        f"${item['name']}": item["allValue"] for item in dashboard["templating"]["list"] if "allValue" in item
    }
    answers = {}
    for panel in dashboard["panels"]:
        step = step_seconds(panel, end - start)
        values = {
            "$__rate_interval": f"{max(step + SCRAPE_SECONDS, 4 * SCRAPE_SECONDS)}s",
            "$__range": f"{round(end - start)}s",
            **all_values,
        }
        for target in panel.get("targets", ()):
            query = target["expr"]
            for name, value in values.items():
                query = query.replace(name, value)
            found = (
                ask(url, "query", query=query, time=end)
                if target["instant"]
                else ask(url, "query_range", query=query, start=start // step * step, end=end, step=step)
            )
            if not found:
                say(f"no data: {panel['title']} {target['refId']}: {query}")
            answers[f"{panel['id']}/{target['refId']}"] = {"step": step, "series": found}
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    height = HEADER_HEIGHT + rows * (CELL_HEIGHT + CELL_MARGIN) + CELL_MARGIN
    data = {"dashboard": dashboard, "answers": answers, "start": start, "end": end}
    (CACHE / "data.js").write_text(f"window.recorded = {json.dumps(data)};\n")
    return screenshot(CACHE / f"{dashboard['uid']}.png", height)


def step_seconds(panel: Mapping[str, Any], span_seconds: float) -> int:
    """The distance of points as Grafana chooses it: at most one per pixel, no closer than the panel allows."""
    interval = panel.get("interval", f"{SCRAPE_SECONDS}s")
    shortest = int(interval[:-1]) * {"s": 1, "m": 60}[interval[-1]]
    pixels: int = PAGE_WIDTH * panel["gridPos"]["w"] // 24
    return max(shortest, round(span_seconds / pixels))


def bundle() -> None:
    """Pack `draw.jsx` and the components into one script beside the page."""
    shutil.copy(HERE / "page.html", CACHE)
    shutil.copy(HERE / "draw.jsx", NODE)
    shutil.copytree(NODE / "node_modules/@grafana/ui/dist/public", CACHE / "public", dirs_exist_ok=True)
    esbuild = NODE / "node_modules/.bin/esbuild"
    options = [
        "--bundle",
        "--jsx=automatic",
        "--outfile=../draw.js",
        "--log-level=error",
        "--loader:.svg=text",
        "--minify",
    ]
    loaders = [f"--loader:.{ending}=dataurl" for ending in ("ttf", "woff", "woff2")]
    run(esbuild, "draw.jsx", *options, *loaders, '--define:process.env.NODE_ENV="production"', cwd=NODE)


def screenshot(picture: Path, height: int) -> Path:
    """Let Chromium draw the page."""
    libraries = CHROMIUM / "usr/lib/x86_64-linux-gnu"
    log = run(
        shutil.which("chromium") or CHROMIUM / "usr/lib/chromium/chromium",
        "--headless",
        "--no-sandbox",  # the sandbox needs a set-uid helper; only our own page is opened
        "--disable-gpu",
        "--hide-scrollbars",
        "--allow-file-access-from-files",  # for the icons
        "--virtual-time-budget=10000",
        "--enable-logging=stderr",
        f"--user-data-dir={CACHE / 'profile'}",
        f"--window-size={PAGE_WIDTH},{height}",
        f"--screenshot={picture}",
        (CACHE / "page.html").as_uri(),
        environment={"LD_LIBRARY_PATH": f"{libraries}:{libraries / 'pulseaudio'}"},
    )
    for line in log.splitlines():
        if "CONSOLE" in line:
            say(line)
    return picture


def run(*command: Any, cwd: Path = ROOT, environment: Mapping[str, str] | None = None) -> str:
    """Run a program to its end and return what it said; leave with that if it fails."""
    done = subprocess.run(  # noqa: S603 - our own
        command,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"render: {command[0]} failed:\n{done.stdout[-4000:]}")
    return done.stdout


def free_address() -> str:
    """A loopback address that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


if __name__ == "__main__":
    main()
