"""The shape of the house: what may import what, units in names, and names of series in one place."""

import ast
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from joulemeter import catalog, errors, model

PACKAGE = Path(__file__).parent.parent / "exporter/joulemeter"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
SHELL = ("cli", "runtime", "meters", "discovery", "simulation", "authorities")
"""Where clock, network, threads, files, environment and vendor libraries may appear."""
PURE_FILES = [path for path in FILES if path.relative_to(PACKAGE).parts[0].removesuffix(".py") not in SHELL]

HARMLESS = {
    *("__future__", "bisect", "collections", "collections.abc", "csv", "dataclasses", "difflib", "enum"),
    *(
        "functools",
        "hashlib",
        "importlib",
        "ipaddress",
        "itertools",
        "json",
        "math",
        "re",
        "operator",
        "pkgutil",
        "statistics",
        "typing",
    ),
    *("base64", "email.utils", "http", "urllib.parse"),
}
"""All that pure modules may import from outside; nothing in it knows the time, a file or another machine.
`importlib` finds modules and data of this package."""
LIBRARIES = {"prometheus_client", "yaml"}
ALSO = {
    "config.py": {"pathlib", "zoneinfo"},  # holds paths, opens none
    "grid_config.py": {"zoneinfo"},
    "price_config.py": {"zoneinfo"},
    "server_config.py": {"pathlib"},
    "tls_config.py": {"pathlib"},
    "web_config.py": {"pathlib"},
    "settings.py": {"pathlib"},
    "schedule.py": {"datetime", "zoneinfo"},  # the calendar, not the time
    "http_config.py": {"pathlib"},
    "report/range.py": {"datetime", "zoneinfo"},
    "report/sources.py": {"array"},
    "report/text.py": {"io"},  # text in memory, for csv
    "grids/__init__.py": {"pathlib", "zoneinfo"},
    "grids/neso.py": {"datetime"},
    "grid_answers.py": {"datetime"},
    "grids/relay.py": {"pathlib"},
    "grids/static.py": {"datetime"},
    "grids/google_cloud.py": {"datetime"},
}
TOUCHES = {
    "open",
    "read_text",
    "read_bytes",
    "write_text",
    "write_bytes",
    "exists",
    "is_file",
    "stat",
    "unlink",
    *("now", "utcnow", "today"),
}
MAY_TOUCH = {  # tables that are part of a package
    "grids/google_cloud.py": {"read_text"},
    "grids/static.py": {"read_text"},
    "zones/__init__.py": {"read_text"},
}

LAYERS = (
    {"model", "errors", "catalog", "histogram", "least_squares", "settings", "schedule"},  # shared
    {"counters", "timeline", "busy", "crosscheck", "remembered", "meters"},  # measure
    {"dialects", "lengths", "pacing", "work", "cache_hits", "late_counters", "history"},  # observe
    {
        "ownership",
        "priors",
        "context_length",
        "engine_work",
        "equations",
        "estimator",
        "windows",
        "boards",
        "attribution",
        "attributor",
        "shares",
        "pairing",
        "request_energy",
    },  # attribute
    {
        "grids",
        "grid_answers",
        "grid_codec",
        "grid_book",
        "grid_polls",
        "grid_view",
        "accounting",
        "ledger",
        "accounts",
        "load",
        "baseline",
        "baselines",
        "sharing",
        "baseline_file",
        "request_books",
        "bookkeeper",
    },  # account
    {"snapshot", "collector"},  # expose
    {
        "yaml_text",
        "zones",
        "server_config",
        "grid_config",
        "price_config",
        "config",
        "http_config",
        "tls_config",
        "web_config",
    },  # what the shell is told
    {"authorities", "discovery"},
    {"formulas", "report"},  # report
    {"runtime"},
    {"simulation"},
    {"cli"},
)
"""Imports go to the same layer or to one above it in this list, never down."""

UNITS = ("_joules", "_seconds", "_watts", "_bytes", "_celsius", "_grams", "_grams_per_kwh", "_ratio")
MONEY = ("_cost", "_credit")  # the currency is a setting
NAME = re.compile(r"(?<![\w:])joulemeter_[a-z0-9_]+")  # a recording rule's name follows a colon


def place(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def imported(tree: ast.AST) -> Iterator[str]:
    """Full names of the modules that a piece of code imports, wherever it does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole path"
            if node.module == "joulemeter":
                yield from (f"joulemeter.{alias.name}" for alias in node.names)
            else:
                yield node.module or ""


def outside(tree: ast.AST) -> set[str]:
    """Imports from outside that are not known to be harmless."""
    names = {name for name in imported(tree) if name.split(".")[0] != "joulemeter"}
    return {name for name in names if name not in HARMLESS and name.split(".")[0] not in LIBRARIES}


def touched(tree: ast.AST) -> set[str]:
    """Calls that reach for a file or the time."""
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    names = {call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls}
    return names & TOUCHES


def layer(part: str) -> int:
    (found,) = (number for number, parts in enumerate(LAYERS) if part in parts)
    return found


def strings(tree: ast.AST) -> Iterator[str]:
    """Text in the code, docstrings left out."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


# ---------------------------------------------------------------------------------------- pure core, thin shell


@pytest.mark.parametrize("path", FILES, ids=place)
def test_what_is_installed_needs_nothing_of_development(path: Path):
    roots = {name.split(".")[0] for name in imported(ast.parse(path.read_text()))}
    assert roots.isdisjoint({"benchmarks", "dashboards", "numba", "numpy", "pytest", "tests"})


@pytest.mark.parametrize("path", PURE_FILES, ids=place)
def test_pure_modules_touch_no_outside_world(path: Path):
    tree = ast.parse(path.read_text())
    assert outside(tree) - ALSO.get(place(path), set()) == set()
    assert touched(tree) - MAY_TOUCH.get(place(path), set()) == set()


@pytest.mark.parametrize(
    "module", ["time", "os.path", "socket", "asyncio", "urllib.request", "pynvml", "random"]
)
def test_a_way_out_would_be_found(module: str):
    assert outside(ast.parse(f"def late():\n    import {module}")) == {module}
    assert outside(ast.parse(f"from {module} import x")) == {module}
    assert touched(ast.parse("Path('x').read_text()\nopen('y')")) == {"read_text", "open"}


def test_exceptions_from_the_rule_are_still_needed():
    assert all(names <= outside(ast.parse((PACKAGE / path).read_text())) for path, names in ALSO.items())
    assert all(names <= touched(ast.parse((PACKAGE / path).read_text())) for path, names in MAY_TOUCH.items())


@pytest.mark.parametrize("path", FILES, ids=place)
def test_imports_follow_the_arrows(path: Path):
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert any(part in parts for parts in LAYERS), f"say in LAYERS where {part} belongs"
    for name in imported(ast.parse(path.read_text())):
        root, _, rest = name.partition(".")
        if root == "joulemeter" and rest:
            to = rest.split(".")[0]
            assert layer(to) <= layer(part), f"{place(path)} must not import {name}"


def test_every_layer_exists():
    parts = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES}
    assert set().union(*LAYERS) == parts


# ---------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    "cls",
    [c for c in vars(model).values() if isinstance(c, type) and is_dataclass(c)],
    ids=lambda c: c.__name__,
)
def test_every_number_names_its_unit(cls: type):
    bare = {field.name for field in fields(cls) if "float" in str(field.type)}
    without = {name for name in bare if not name.endswith(UNITS + MONEY)}
    assert without == ({"value"} if cls is model.RoleReading else set()), "RoleReading's unit is its role"


@pytest.mark.parametrize("path", FILES, ids=place)
def test_names_of_series_live_in_the_catalogue_alone(path: Path):
    text = path.read_text()
    known = {metric.name for metric in catalog.ALL}
    if path.name != "catalog.py":
        written = [one for one in strings(ast.parse(text)) if NAME.search(one)]
        assert written == [], "take the name from catalog.py"
    assert {name for name in NAME.findall(text) if "virtual_nvml" not in name} <= known, "no such series"


def test_dashboards_take_names_from_the_catalogue():
    for path in (PACKAGE.parent.parent / "dashboards").glob("*.py"):
        written = [one for one in strings(ast.parse(path.read_text())) if NAME.search(one)]
        assert written == [], path.name


def test_a_name_written_elsewhere_would_be_found():
    tree = ast.parse('"""Says joulemeter_x."""\nA = f"rate({B}) / joulemeter_gpu_joules_total"\n')
    assert [one for one in strings(tree) if NAME.search(one)] == [") / joulemeter_gpu_joules_total"]


# ---------------------------------------------------------------------------------------- the catalogue

BASE_UNITS = {"joules", "grams", "seconds", "watts", "bytes", "celsius", "ratio", "tokens", "requests"}
COUNTS = {
    "joulemeter_energy_meter_resets_total",
    "joulemeter_grid_fetches_total",
    "joulemeter_refused_pages_total",
}
"""Counters of events: Prometheus asks for no unit there."""
STATES = {
    "joulemeter_grid_quality",
    "joulemeter_model_baseline_in_range",
    "joulemeter_model_requests_running",
    "joulemeter_simulated",
    "joulemeter_source_up",
    "process_max_fds",
    "process_open_fds",
}
"""Gauges that are 1 or 0, or count what goes on now."""


@pytest.mark.parametrize("metric", catalog.ALL, ids=lambda metric: metric.name)
def test_name_obeys_prometheus(metric: catalog.Metric):
    assert re.fullmatch(r"(joulemeter|process)(_[a-z0-9]+)+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    bare = re.sub("_per_(kwh|token)$", "", metric.name.removesuffix("_total"))  # a rate by its customary unit
    if "currency" in metric.labels:  # the unit of money is a label
        assert bare.rpartition("_")[2] in {"cost", "credit", "price"}
    elif metric.name not in COUNTS | STATES and not bare.endswith("_info"):
        assert bare.rpartition("_")[2] in BASE_UNITS
    assert not set(bare.split("_")) & {
        "kwh",
        "milliseconds",
        "ms",
        "millijoules",
        "percent",
        "kilowatts",
        "mib",
    }


@pytest.mark.parametrize("metric", catalog.ALL, ids=lambda metric: metric.name)
def test_help_is_a_sentence(metric: catalog.Metric):
    assert metric.help.endswith(".")
    assert metric.help[0].isupper() or metric.help[0] == "1"
    assert "\n" not in metric.help


@pytest.mark.parametrize("metric", catalog.ALL, ids=lambda metric: metric.name)
def test_labels_come_in_whole_groups(metric: catalog.Metric):
    labels = set(metric.labels)
    assert len(labels) == len(metric.labels)
    for group in (catalog.GPU, catalog.SERVED):
        some = labels & set(group)  # the server alone labels what no model of it has for itself
        assert some in (set(), set(group), {"server"}), f"{group} go together"
    for reserved in ("le", "quantile", "instance", "job", "cluster", "node"):
        assert reserved not in labels, "who we are is the scraper's business"
    if metric.name.endswith("_info"):
        assert metric.kind == "gauge"
        assert metric.help.startswith("1; ")


@pytest.mark.parametrize("metric", catalog.ALL, ids=lambda metric: metric.name)
def test_buckets_are_few_and_rise(metric: catalog.Metric):
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert list(metric.buckets) == sorted(set(metric.buckets))
    assert len(metric.buckets) + 1 <= 11, "+Inf is one of the eleven"


def test_names_are_unique():
    assert len({metric.name for metric in catalog.ALL}) == len(catalog.ALL)


# ---------------------------------------------------------------------------------------- errors


def test_every_exception_is_raised_and_all_are_on_one_screen():
    declared = {name for name, value in vars(errors).items() if isinstance(value, type)} - {"Sequence"}
    others = {path: path.read_text() for path in FILES if path.name != "errors.py"}
    for name in declared:
        assert issubclass(vars(errors)[name], errors.JoulemeterError)
        assert vars(errors)[name].__doc__
        assert any(f"{name}(" in text for text in others.values()), f"nothing raises {name}"
    for path, text in others.items():
        assert not re.search(r"^class \w+\(\w*(Error|Exception)\)", text, re.MULTILINE), path
