"""Draw the dashboards to be looked at, and for the README: `make render`, or `python tools/render/render.py`.

Two simulated nodes over two and a half days fill a real Prometheus (`benchmarks/history`), every query of every panel
is put to it over the last day, and the answers are drawn by the components that Grafana itself is built from
(`@grafana/ui`) in a headless Chromium, to docs/images. The days stay in `.cache/render`; `--redraw` draws changed
dashboards from them. A query without an answer is named; so is what Chromium's console says.

What is not Grafana here: queries are put and panels placed by this script and `draw.jsx`, not by Grafana's server and
page; state timelines and heatmaps, which Grafana publishes no component for, are drawn after its fashion. Variables
stand at All, and at what is typed into them from the start.

It needs npm and, where Chromium or Prometheus is not on the PATH, Debian: their packages are unpacked below
`.cache`, which needs no root and starts no service.
"""

import argparse
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from PIL import Image

from benchmarks import prometheus
from benchmarks.history import nodes, panels, plan
from benchmarks.history.days import Days, simulate_days

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parent.parent
CACHE: Final = ROOT / ".cache/render"
NODE: Final = CACHE / "node"
CHROMIUM: Final = CACHE / "chromium"
DAYS: Final = CACHE / "days"
NOTES: Final = CACHE / "days.pickle"
PICTURES: Final = ROOT / "docs/images"
GENERATED: Final = ROOT / "dashboards/generated"

HOURS: Final = 61.5
"""Until 13:30 on the third day: the traffic's first day, a yesterday, and a half. On no full hour, for a tick at the
edge of a picture is cut off.
"""
SPAN_SECONDS: Final = plan.DAY_SECONDS
CHOSEN: Final = {"currency": nodes.CURRENCY}
LIMIT_BYTES: Final = 300_000
"""Of a picture in the repository."""
VIVID: Final = 60
"""How far the channels of a colour that is no shade of grey differ, of 255."""
CELL_HEIGHT: Final = 30
CELL_MARGIN: Final = 8
HEADER_HEIGHT: Final = 56
"""These three as in draw.jsx."""


def main() -> None:
    """Play the days if asked to, then draw every dashboard."""
    parser = argparse.ArgumentParser(description="Draw the dashboards with simulated days.")
    parser.add_argument("--redraw", action="store_true", help="draw the days that were simulated last")
    arguments = parser.parse_args()
    install()
    if not arguments.redraw:
        say(f"simulating {HOURS:g} hours of two nodes, some minutes ...")
        shutil.rmtree(DAYS, ignore_errors=True)
        NOTES.write_bytes(pickle.dumps(simulate_days(DAYS, HOURS, plan.FINE)))
    bundle()
    days: Days = pickle.loads(NOTES.read_bytes())  # noqa: S301 - our own
    with prometheus.running(days.data) as url:
        for path in sorted((GENERATED / "grafana").glob("*.json")):
            say(str(draw(json.loads(path.read_text()), url, days)))


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


def draw(dashboard: dict[str, Any], url: str, days: Days) -> Path:
    """Answer every panel's queries and take the picture."""
    end = days.end_timestamp_seconds
    start = end - SPAN_SECONDS
    answers = {}
    for asked in panels.asked_by(dashboard, SPAN_SECONDS, days.grain.scrape_seconds, CHOSEN):
        step = asked.step_seconds
        begin = (end - asked.span_seconds) // step * step
        when = {"time": end} if asked.instant else {"start": begin, "end": end, "step": step}
        kind = "query" if asked.instant else "query_range"
        found = prometheus.asked(url, kind, query=asked.expr, **when)["result"]
        if not found:
            say(f"no data: {asked.panel['title']} {asked.target['refId']}: {asked.expr[:200]}")
        answers[f"{asked.panel['id']}/{asked.target['refId']}"] = {
            "step": step,
            "span": asked.span_seconds,
            "series": found,
        }
    values = {**panels.texts(dashboard, CHOSEN), "$__range": f"{SPAN_SECONDS:.0f}s"}
    marked = [
        {
            "color": one["iconColor"],
            "step": panels.seconds(one["step"]),
            "series": _over(url, panels.filled(one["expr"], values), start, end, panels.seconds(one["step"])),
        }
        for one in dashboard["annotations"]["list"]
        if one["enable"]
    ]
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    height = HEADER_HEIGHT + rows * (CELL_HEIGHT + CELL_MARGIN) + CELL_MARGIN
    texts = panels.texts(dashboard, CHOSEN)
    data = {
        "dashboard": dashboard,
        "answers": answers,
        "marked": marked,
        "start": start,
        "end": end,
        "texts": texts,
    }
    (CACHE / "data.js").write_text(f"window.recorded = {json.dumps(data)};\n")
    picture = screenshot(PICTURES / f"{dashboard['uid']}.png", height)
    picture.write_bytes(small(Image.open(picture).convert("RGB")))
    return picture


def _over(url: str, expr: str, start: float, end: float, step: int) -> list[dict[str, Any]]:
    begin = start // step * step
    found = prometheus.asked(url, "query_range", query=expr, start=begin, end=end, step=step)
    return list(found["result"])


def small(picture: Image.Image) -> bytes:
    """Return a PNG below the limit if 128 colours make it one; fewer would draw a line unlike its legend.

    A third of the colours are the most common ones, a third the most common vivid ones, of lines and of legends, a
    third cover the rest. Common ones alone would be greys.
    """
    common = [colour for _, colour in sorted(picture.getcolors(1 << 24), reverse=True)]
    vivid = [colour for colour in common if max(colour) - min(colour) >= VIVID]
    for third in (85, 64, 43):
        rare = picture.quantize(third, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        chosen = dict.fromkeys((*common[:third], *vivid[:third]))
        palette = Image.new("P", (1, 1))
        palette.putpalette([*(part for colour in chosen for part in colour), *rare.getpalette()[: 3 * third]])
        out = io.BytesIO()
        picture.quantize(palette=palette, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
        if len(out.getvalue()) < LIMIT_BYTES:
            break
    return out.getvalue()


def bundle() -> None:
    """Pack `draw.jsx` and the components into one script beside the page."""
    shutil.copy(HERE / "page.html", CACHE)
    for script in HERE.glob("*.jsx"):
        shutil.copy(script, NODE)
    shutil.copytree(NODE / "node_modules/@grafana/ui/dist/public", CACHE / "public", dirs_exist_ok=True)
    esbuild = NODE / "node_modules/.bin/esbuild"
    options = [
        "--bundle",
        "--jsx=automatic",
        "--outfile=../draw.js",
        "--log-level=error",
        "--loader:.svg=text",
        "--minify",
        "--alias:react-custom-scrollbars-2=./scrollbars.jsx",
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
        f"--window-size={panels.PAGE_PIXELS},{height}",
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


if __name__ == "__main__":
    main()
