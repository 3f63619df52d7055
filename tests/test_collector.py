"""The page: byte for byte as reviewed, the same in both formats, and exactly what the catalogue says."""

import math
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import pytest
import snapshots
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from joulemeter import catalog
from joulemeter.collector import MAX_FORMATS, Renderer, SnapshotCollector, render
from joulemeter.snapshot import Snapshot

TEXT = "text/plain;version=0.0.4"
OPENMETRICS = "application/openmetrics-text;version=1.0.0"
NODES = {"empty": snapshots.empty(), "full": snapshots.full()}
FORMATS = {"prom": TEXT, "openmetrics": OPENMETRICS}
Sample = tuple[str, frozenset[tuple[str, str]]]


def page(snapshot: Snapshot, accept: str = TEXT) -> str:
    return render(snapshot, accept)[0].decode()


def samples(families: Iterable[Metric]) -> dict[Sample, float]:
    """Every sample of a page by name and labels; none may come twice."""
    found: dict[Sample, float] = {}
    for family in families:
        for sample in family.samples:
            assert sample.timestamp is None
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, f"{key} is on the page twice"
            found[key] = sample.value
    return found


def on_full_page() -> dict[Sample, float]:
    return samples(parse_text(page(NODES["full"])))


# ---------------------------------------------------------------------------------------------- the bytes


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("node", NODES)
def test_page_is_golden(node: str, suffix: str, golden: Callable[[str, str], None]):
    golden(f"{node}.{suffix}", page(NODES[node], FORMATS[suffix]))


@pytest.mark.parametrize("node", NODES)
def test_promtool_has_nothing_to_say_about_the_page(node: str, promtool: str):
    done = subprocess.run(
        [promtool, "check", "metrics"], input=page(NODES[node]), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_promtool_would_have_something_to_say(promtool: str):
    wrong = "# TYPE joulemeter_energy_kilojoules counter\njoulemeter_energy_kilojoules 1\n"
    done = subprocess.run(
        [promtool, "check", "metrics"], input=wrong, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0


# ------------------------------------------------------------------------------------------ page after page


def later(snapshot: Snapshot) -> Snapshot:
    """The same series with other values, some of which are written in another way."""
    odd = [0.1, 1e7, 1e20, 0.0, 2.0**-14]
    samples = {
        name: {labels: value + odd[i % 5] for i, (labels, value) in enumerate(of_name.items())}
        for name, of_name in snapshot.samples.items()
    }
    histograms = {
        name: {
            labels: replace(value, counts=tuple(count + 3 for count in value.counts), sum=value.sum + 0.7)
            for labels, value in of_name.items()
        }
        for name, of_name in snapshot.histograms.items()
    }
    return Snapshot(samples, histograms)


def with_another_series(snapshot: Snapshot) -> Snapshot:
    samples = {name: dict(of_name) for name, of_name in snapshot.samples.items()}
    samples.setdefault(catalog.SOURCE_UP.name, {})["server", "A\u2028 late {one} 1 #"] = 1
    return Snapshot(samples, snapshot.histograms)


@pytest.mark.parametrize("accept", FORMATS.values())
@pytest.mark.parametrize("node", NODES)
def test_kept_form_gives_the_library_s_bytes(node: str, accept: str):
    first = NODES[node]
    grown = with_another_series(first)
    renderer = Renderer()
    for snapshot in (
        first,
        later(first),
        later(later(first)),
        grown,
        later(grown),
        later(first),
        Snapshot({}),
    ):
        assert renderer(snapshot, accept) == render(snapshot, accept)


def test_formats_take_turns_and_a_client_cannot_fill_the_memory_with_names_for_them():
    renderer, first = Renderer(), NODES["full"]
    worded = [f"application/openmetrics-text;version=1.0.{n}" for n in range(MAX_FORMATS + 1)]
    for snapshot in (first, later(first)):
        for accept in (*FORMATS.values(), *worded, *FORMATS.values()):
            assert renderer(snapshot, accept) == render(snapshot, accept)


# --------------------------------------------------------------------------------------------- the formats


@pytest.mark.parametrize("node", NODES)
def test_both_formats_say_the_same(node: str):
    text = samples(parse_text(page(NODES[node])))
    assert samples(parse_openmetrics(page(NODES[node], OPENMETRICS))) == text
    assert len(text) > 20
    assert all(math.isfinite(value) for value in text.values())


@pytest.mark.parametrize("node", NODES)
def test_the_page_says_what_the_snapshot_holds_to_the_last_digit(node: str):
    snapshot, text = NODES[node], samples(parse_text(page(NODES[node])))
    for spec in catalog.ALL:
        for labels, value in snapshot.samples.get(spec.name, {}).items():
            assert text.pop((spec.name, frozenset(zip(spec.labels, labels, strict=True)))) == value
    assert all(name.endswith(("_bucket", "_count", "_sum")) for name, _ in text), (
        "nothing else is on the page"
    )


def test_label_values_survive():
    models = {dict(labels).get("model") for _, labels in on_full_page()}
    assert snapshots.STRANGE in models
    assert snapshots.STRANGE in {
        dict(labels).get("model")
        for _, labels in samples(parse_openmetrics(page(NODES["full"], OPENMETRICS)))
    }


def test_histograms_count_upwards_to_their_count():
    of_labels: dict[tuple[str, frozenset[tuple[str, str]]], list[float]] = defaultdict(list)
    text = on_full_page()
    for (name, labels), value in text.items():
        if name.endswith("_bucket"):
            of_histogram = frozenset(label for label in labels if label[0] != "le")
            of_labels[name.removesuffix("_bucket"), of_histogram].append(value)
    assert len(of_labels) == 6
    for (name, labels), counts in of_labels.items():
        assert counts == sorted(counts)
        assert counts[-1] == text[f"{name}_count", labels] > 0


# ----------------------------------------------------------------------------------------- the catalogue


def base_names(page_samples: Iterable[Sample]) -> set[str]:
    """Names as in the catalogue: a histogram's samples are of one metric."""
    histograms = {spec.name for spec in catalog.ALL if spec.kind == "histogram"}
    names = set()
    for name, _ in page_samples:
        bare = name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum")
        names.add(bare if bare in histograms else name)
    return names


def test_everything_in_the_catalogue_is_produced_and_nothing_else_is():
    assert base_names(on_full_page()) == {spec.name for spec in catalog.ALL}


def test_families_come_with_type_help_and_labels_of_the_catalogue():
    families = {family.name: family for family in parse_text(page(NODES["full"]))}
    for spec in catalog.ALL:
        family = families[spec.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (spec.kind, spec.help)
        for sample in family.samples:
            assert sample.labels.keys() - {"le"} == set(spec.labels)


def values_of(label: str, *metrics: catalog.Metric) -> set[str]:
    names = {metric.name for metric in metrics}
    return {dict(labels)[label] for name, labels in on_full_page() if name in names}


@pytest.mark.parametrize(
    ("label", "metrics", "known"),
    [
        ("phase", (catalog.MODEL_ENERGY, catalog.MODEL_CO2E), catalog.PHASES),
        ("kind", (catalog.MODEL_TOKENS,), catalog.TOKEN_KINDS),
        ("kind", (catalog.UNATTRIBUTED_TOKENS,), catalog.TOKEN_KINDS),
        ("reason", (catalog.UNATTRIBUTED_TOKENS,), catalog.LOST_TOKEN_REASONS),
        ("reason", (catalog.UNATTRIBUTED_ENERGY, catalog.UNATTRIBUTED_CO2E), catalog.UNATTRIBUTED_REASONS),
        ("reason", (catalog.REFUSED_PAGES,), catalog.REFUSAL_REASONS),
        ("method", (catalog.SERVER_INFO,), catalog.METHODS),
        ("split", (catalog.SERVER_INFO,), catalog.SPLITS),
        ("steps", (catalog.SERVER_INFO,), catalog.STEPS),
        ("basis", (catalog.MODEL_COMPARED_ENERGY, catalog.MODEL_EXPECTED_ENERGY), catalog.BASES),
        ("state", (catalog.MODEL_BASELINE_INFO,), catalog.BASELINE_STATES),
        ("kind", (catalog.SOURCE_UP,), catalog.SOURCE_KINDS),
        ("quality", (catalog.GRID_QUALITY,), catalog.GRID_QUALITIES),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_label_takes_each_known_value(
    label: str, metrics: tuple[catalog.Metric, ...], known: tuple[str, ...]
):
    assert values_of(label, *metrics) == set(known)


def test_describing_does_not_need_a_snapshot():
    def never() -> Snapshot:
        raise AssertionError("describe took a snapshot")

    described = list(SnapshotCollector(never).describe())
    assert [family.type for family in described] == [spec.kind for spec in catalog.ALL]
    assert not any(family.samples for family in described)


# ---------------------------------------------------------------------------------------------- the laws


def total(name: str) -> float:
    return math.fsum(value for (sample, _), value in on_full_page().items() if sample == name)


@pytest.mark.parametrize(
    "names",
    [
        (
            catalog.GPU_ENERGY,
            (
                catalog.MODEL_ENERGY,
                catalog.UNATTRIBUTED_ENERGY,
                catalog.PENDING_ENERGY,
                catalog.RETIRED_ENERGY,
            ),
        ),
        (
            catalog.GPU_CO2E,
            (catalog.MODEL_CO2E, catalog.UNATTRIBUTED_CO2E, catalog.PENDING_CO2E, catalog.RETIRED_CO2E),
        ),
    ],
)
def test_the_page_adds_up(names: tuple[catalog.Metric, tuple[catalog.Metric, ...]]):
    measured, parts = names
    assert all(total(part.name) > 0 for part in parts)
    assert math.fsum(total(part.name) for part in parts) == pytest.approx(total(measured.name), rel=1e-9)


def shown(metric: catalog.Metric, **labels: str) -> Iterator[float]:
    for (name, found), value in on_full_page().items():
        if name == metric.name and labels.items() <= dict(found).items():
            yield value


def test_a_lost_gpu_has_no_gauges_and_keeps_its_energy():
    lost = snapshots.LOST.uuid
    assert list(shown(catalog.SOURCE_UP, kind="gpu", source=lost)) == [0]
    assert list(shown(catalog.GPU_POWER, uuid=lost)) == []
    assert next(shown(catalog.GPU_ENERGY, uuid=lost)) > 0
    assert list(shown(catalog.GPU_POWER, uuid=snapshots.BIG.uuid)) == [512.5]


def test_a_retired_models_series_are_gone():
    assert list(shown(catalog.MODEL_ENERGY, model=snapshots.GONE.model)) == []
    assert next(shown(catalog.RETIRED_ENERGY)) > 0


@pytest.mark.parametrize("node", NODES)
def test_a_family_without_samples_stays_out(node: str):
    assert all(family.samples for family in parse_text(page(NODES[node])))


def test_a_node_without_a_gpu_shows_no_joule():
    names = base_names(samples(parse_text(page(NODES["empty"]))))
    assert not {name for name in names if "energy" in name or "co2e" in name}
    assert {catalog.SOURCE_UP.name, catalog.LAST_TICK.name, catalog.BUILD_INFO.name} <= names
