"""Histories with restarts, gaps and models that come and go: what the pages tell is counted, once, and adds up."""

import math
from array import array
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_history import BOOKS, Exporter, Store, series

from joulemeter import catalog
from joulemeter.report.increases import Increase, Life, coverage, falls
from joulemeter.report.rows import Report, Section, report
from joulemeter.report.sources import Series, Sighting, Sources, by_source, sources, target_of
from joulemeter.report.tally import ENERGY, METRICS, Gained, Tally

SCRAPE = 15.0
LIFE = Life(array("d", [SCRAPE * n for n in range(1, 100)]))


def life(*pages: float, restarts: tuple[float, ...] = ()) -> Life:
    return Life(array("d", pages), restarts)


def gained(pages: Life, *samples: tuple[float, float], begin: float = 0.0, gauge: bool = False) -> float:
    increase = Increase(pages, begin, gauge=gauge)
    for at, value in samples:  # one at a time, and all at once
        increase.advance([at], [value])
    whole = Increase(pages, begin, gauge=gauge)
    whole.advance([at for at, _ in samples], [value for _, value in samples])
    assert whole.total == pytest.approx(increase.total, abs=1e-12)
    return whole.total


# ---------------------------------------------------------------------------------------------- one series


def test_range_begins_with_the_last_sample_before_it():
    assert gained(LIFE, (15, 100), (30, 130), (45, 180), begin=40) == 50
    assert gained(LIFE, (15, 100), (30, 130), (45, 180), begin=30) == 50


def test_birth_on_a_page_of_a_known_exporter_counts_from_zero():
    assert gained(LIFE, (30, 7), (45, 9)) == 9


def test_what_the_first_page_shows_is_left_to_the_page():
    increase = Increase(LIFE, 0.0)
    increase.advance([15, 30], [1000, 1010])
    assert (increase.total, increase.on_first_page) == (10, 1000)


def test_fall_counts_from_zero():
    assert gained(LIFE, (15, 100), (30, 40), (45, 50)) == 50


def test_restart_that_this_series_does_not_show_counts_from_zero():
    assert gained(life(15, 30, 45, restarts=(30,)), (15, 100), (30, 140), (45, 150)) == 150


def test_restart_while_the_series_was_away_counts_from_zero():
    assert gained(life(15, 30, 45, 60, restarts=(30,)), (15, 100), (60, 140)) == 140


def test_gap_without_scrapes_is_bridged_by_the_counter():
    assert gained(life(15, 7200), (15, 100), (7200, 140)) == 40


def test_dropped_series_that_returns_counts_from_zero():
    assert gained(LIFE, (15, 100), (900, 140)) == 140


def test_hole_of_some_pages_in_one_series_is_the_stores():
    assert gained(LIFE, (15, 100), (75, 140)) == 40


def test_gauge_may_fall():
    assert gained(LIFE, (15, 100), (30, 40), (45, 50), gauge=True) == -50
    assert gained(life(15, 30, 45, restarts=(30,)), (15, 100), (30, 40), gauge=True) == 40


def test_samples_that_come_twice_count_once():
    increase = Increase(LIFE, 0.0)
    increase.advance([15, 30], [0, 10])
    increase.advance([15, 30, 45], [0, 10, 30])
    increase.advance([45], [30])
    assert increase.total == 30


def test_falls():
    assert falls([1, 2, 3, 4], [5, 6, 2, 2]) == [3]


def test_coverage_is_the_whole_range():
    pages = life(90, 110, 130, 2000, 2020, 2040, restarts=(2020,))
    seen = coverage(pages, 100, 4000)
    assert seen.bridged_seconds == 1870
    assert seen.restart_seconds == 20
    assert seen.edge_seconds == 4000 - 2040
    assert seen.known_seconds + seen.restart_seconds + seen.edge_seconds == 3900
    assert seen.restarts == 1
    assert coverage(pages, 0, 140).edge_seconds == 90
    assert coverage(pages, 3000, 4000).known_seconds == 0


# ---------------------------------------------------------------------------------------------- whole histories

joules = st.integers(1, 10**7).map(lambda mj: mj / 1000)
events = st.one_of(
    st.tuples(st.just("use"), st.integers(0, 1), joules),
    st.tuples(st.just("settle"), st.integers(0, 1), st.sampled_from(["a", "b", None])),
    st.tuples(st.just("part"), st.integers(0, 1), st.sampled_from(["a", "b", None])),
    st.tuples(st.just("scrape"), st.integers(1, 4), st.none()),
    st.tuples(st.just("gap"), st.integers(1, 300), st.none()),
    st.tuples(st.just("restart"), st.none(), st.none()),
    st.tuples(st.just("load"), st.none(), st.sampled_from("ab")),
    st.tuples(st.just("retire"), st.none(), st.sampled_from("ab")),
)
histories = st.lists(events, min_size=5, max_size=60)


def played(history: list[tuple[str, int, object]]) -> Exporter:
    """Play events on an exporter that is scraped every 15 s but in gaps; retirement takes an hour."""
    node = Exporter({"job": "joulemeter", "instance": "n1"})
    at = 0.0
    for what, number, more in history:
        gpu = node.gpus[number] if what in {"use", "settle", "part"} else ""
        if what == "use":
            node.use(gpu, float(str(more)) * 0.01**node.life)  # so that most restarts show
        elif what in {"settle", "part"}:
            model = more if more in node.models else None
            node.settle(gpu, model, 1.0 if what == "settle" else 0.5, (10.0, 2.0, 5.0, 1.0))
        elif what == "restart":
            node.restart()
        elif what == "load" and more not in node.models:
            node.load(str(more))
        elif what == "retire" and more in node.models:
            at += 3600
            node.scrape(at)  # the last page that has it
            node.retire(str(more))
        elif what == "gap":
            at += number * 60
        for _ in range(number if what == "scrape" else 0):
            at += SCRAPE
            node.scrape(at)
    node.scrape(at + SCRAPE)
    return node


def found_in(store: Store, edges: list[float]) -> Sources:
    sightings: dict[frozenset[tuple[str, str]], Sighting] = {}
    for low, high in pairwise(edges):
        chunk = by_source(ENERGY.measured, series(store, ENERGY.measured, low, high))
        for target in {target for target, _ in chunk}:
            some = {key: one for (whose, key), one in chunk.items() if whose == target}
            sightings.setdefault(target, Sighting()).take(some, keep=False)
    return sources(sightings)


def counted(
    store: Store, begin: float, end: float, cuts: tuple[float, ...] = (), *, left_open: bool = False
) -> tuple[Gained, Sources]:
    edges = sorted({-1.0, *(cut for cut in cuts if cut < end), end})
    found = found_in(store, edges)
    tally = Tally(found, begin)
    for metric in METRICS:
        for low, high in pairwise(edges):
            tally.take(metric, series(store, metric, low, high, left_open=left_open))
    return tally.gained(), found


def adds_up(made: Report) -> bool:
    *parts, total = made.rows
    assert total.section is Section.TOTAL
    sums = [math.fsum(row.energy_joules for row in parts), math.fsum(row.co2e_grams for row in parts)]
    wanted = [total.energy_joules, total.co2e_grams]
    for price in {price for row in made.rows for price in row.cost}:
        sums.append(math.fsum(row.cost.get(price, 0.0) for row in parts))
        wanted.append(total.cost.get(price, 0.0))
    return all(
        math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9) for one, other in zip(sums, wanted, strict=True)
    )


instants = st.integers(0, 2000).map(
    lambda n: n * SCRAPE
)  # pages are at such instants: edges that meet one, too


@settings(deadline=None)
@given(histories, st.lists(instants, max_size=5), instants, instants, st.booleans())
def test_all_that_is_scraped_is_counted_where_it_belongs_and_adds_up(history, cuts, begin, length, left_open):
    node = played(history)
    end = begin + length
    store = node.store()
    if not any(begin < page.at <= end for page in node.pages):
        return
    got, found = counted(store, begin, end, tuple(cuts), left_open=left_open)
    made = report(got, found, begin, end)
    assert adds_up(made)
    if not node.is_told():
        return
    want = node.truth(begin, end)
    for metric in METRICS:
        if metric in {books.pending for books in BOOKS}:
            continue  # what a daemon took with it is in no later page; the rows below have it
        sums: dict[tuple[str, ...], float] = {}
        for (_, key), amount in got.get(metric, {}).items():
            sums[key] = sums.get(key, 0.0) + amount
        for key, amount in want[metric].items():
            assert sums.get(key, 0.0) == pytest.approx(amount, rel=1e-9, abs=1e-6), (metric.name, key)
        assert sums.keys() <= want[metric].keys()
    rest = next(row for row in made.rows if row.section is Section.NOT_COVERED)
    assert rest.energy_joules == pytest.approx(made.in_transit_joules, rel=1e-9, abs=1e-6)
    assert made.warnings == ()


@settings(deadline=None)
@given(histories, instants, st.lists(instants, max_size=3))
def test_two_ranges_that_meet_add_up_to_the_whole(history, middle, cuts):
    store = played(history).store()
    whole = totals(counted(store, -0.5, 1e6, tuple(cuts))[0])
    first, second = (totals(counted(store, *span)[0]) for span in ((-0.5, middle), (middle, 1e6)))
    for metric, amount in whole.items():
        parts = first.get(metric, 0.0) + second.get(metric, 0.0)
        assert parts == pytest.approx(amount, rel=1e-9, abs=1e-6), metric


def totals(got: Gained) -> dict[str, float]:
    return {metric.name: math.fsum(increases.values()) for metric, increases in got.items()}


def test_a_restart_shows_what_was_pending_then_as_not_covered():
    node = Exporter({"instance": "n1"}, gpus=("GPU-a",))
    node.scrape(15)
    node.load("a")
    node.use("GPU-a", 1000)
    node.settle("GPU-a", "a", 0.75)
    node.scrape(30)
    node.restart()
    node.use("GPU-a", 100)
    node.scrape(45)
    node.settle("GPU-a", None)
    node.scrape(60)
    made = report(*counted(node.store(), 0, 60), 0, 60)
    assert [(row.name, row.energy_joules) for row in made.rows] == [
        ("a", 750),
        ("unattributed: no_server", 100),
        ("not covered", 250),
        ("total", 1100),
    ]
    (seen,) = made.coverage.values()
    assert (seen.restarts, seen.restart_seconds) == (1, 15)
    assert made.lost_estimate_joules == pytest.approx(1100 / seen.known_seconds * 15)


def test_an_exporter_first_seen_in_mid_life_begins_with_what_it_shows():
    node = Exporter({"instance": "n1"}, gpus=("GPU-a",))
    node.load("a")
    node.use("GPU-a", 5e6)
    node.settle("GPU-a", "a")
    node.scrape(1000)
    node.use("GPU-a", 100)
    node.settle("GPU-a", "a")
    node.scrape(1015)
    made = report(*counted(node.store(), 0, 2000), 0, 2000)
    assert made.total.energy_joules == 100


def test_series_that_a_rule_drops_are_missed():
    node = Exporter({"instance": "n1"}, gpus=("GPU-a",))
    node.scrape(15)
    node.load("a")
    node.use("GPU-a", 3.6e6)
    node.settle("GPU-a", "a")
    node.scrape(30)
    store = {key: samples for key, samples in node.store().items() if key[0] != catalog.MODEL_ENERGY.name}
    made = report(*counted(store, 0, 60), 0, 60)
    assert adds_up(made)
    assert "1 kWh that GPUs measured are in no series" in made.warnings[0]


# ---------------------------------------------------------------------------------------------- replicas


def busy_node(*, instance: str, first_joules: float = 0.0) -> Exporter:
    node = Exporter({"instance": instance}, gpus=("GPU-a",))
    node.load("a")
    node.use("GPU-a", first_joules)
    node.settle("GPU-a", "a")
    return node


def run(node: Exporter, begin: float, end: float, *, watts: float = 100.0, scrapes: list[Exporter]) -> None:
    """Use energy second by second; each of `scrapes` is the node as another server sees it, at another offset."""
    for at in range(int(begin), int(end)):
        node.use("GPU-a", watts)
        node.settle("GPU-a", "a")
        for index, seen in enumerate(scrapes):
            if at % 15 == index:
                node.scrape(at)
                seen.pages.append(node.pages.pop())


def kept(*nodes: Exporter) -> Sources:
    sightings = {}
    for node in nodes:
        for (target, key), one in by_source(
            ENERGY.measured, series(node.store(), ENERGY.measured, -1, 1e9)
        ).items():
            sightings.setdefault(target, Sighting()).take({key: one}, keep=True)
    return sources(sightings)


def both(*nodes: Exporter) -> Report:
    found = kept(*nodes)
    tally = Tally(found, -1.0)
    for metric in METRICS:
        tally.take(metric, [one for node in nodes for one in series(node.store(), metric, -1, 1e9)])
    return report(tally.gained(), found, -1.0, 10_000.0)


def test_a_node_that_two_servers_scrape_counts_once_and_one_fills_the_others_gap():
    node = busy_node(instance="n1")
    one, two = Exporter({"replica": "0", "instance": "n1"}), Exporter({"replica": "1", "instance": "n1"})
    run(node, 0, 3000, scrapes=[one, two])
    run(node, 3000, 4500, scrapes=[Exporter({}), two])
    node.restart()
    node.load("a")
    run(node, 4500, 6000, scrapes=[Exporter({}), two])
    run(node, 6000, 9000, scrapes=[one, two])
    del two.pages[:120]  # so that the first has more pages
    del two.pages[-120:]
    made = both(one, two)
    assert adds_up(made)
    assert len(made.coverage) == 1
    assert made.coverage[frozenset(one.target.items())].restarts == 1
    assert made.total.energy_joules == pytest.approx(9000 * 100, abs=35 * 100)


def test_two_daemons_on_one_gpu_count_once_and_are_told():
    node, other = busy_node(instance="n1"), busy_node(instance="n2", first_joules=5e5)
    run(node, 0, 3000, scrapes=[node])
    run(other, 0, 2900, scrapes=[other])
    made = both(node, other)
    assert made.total.energy_joules == pytest.approx(3000 * 100, abs=16 * 100)
    assert '{instance="n2"} and {instance="n1"} both measure the same GPU' in made.warnings[0]


def test_a_node_under_a_new_name_counts_under_both():
    node = busy_node(instance="n1")
    run(node, 0, 3000, scrapes=[node])
    later = Exporter({"instance": "10.0.0.7:9847"}, gpus=("GPU-a",))
    later.scrape(3000)
    later.load("a")
    run(later, 3001, 6000, scrapes=[later])
    made = both(node, later)
    assert len(made.coverage) == 2
    assert made.total.energy_joules == pytest.approx(6000 * 100, abs=35 * 100)


def test_labels_that_the_scraper_overwrote_are_ours():
    labels = {
        "instance": "n1",
        "namespace": "monitoring",
        "pod": "x",
        "exported_namespace": "chat",
        "model": "m",
    }
    assert target_of(labels) == {("instance", "n1")}
    ((_, key),) = by_source(catalog.MODEL_REQUESTS, [Series(labels, [1.0], [2.0])])
    assert key == ("", "m", "chat", "x")


def test_two_daemons_under_the_same_labels_are_suspected():
    one, other = busy_node(instance="n1", first_joules=100.0), busy_node(instance="n1", first_joules=5000.0)
    for page in range(1, 40):
        one.use("GPU-a", 10.0)
        other.use("GPU-a", 10.0)
        one.scrape(15.0 * page)
        other.scrape(15.0 * page + 7)
    one.pages = sorted(one.pages + other.pages, key=lambda page: page.at)
    made = both(one)
    assert (
        '{instance="n1"} restarts 38 times on 78 pages: its figures are too high if two exporters'
        in made.warnings[0]
    )


def test_copies_are_known_after_seconds_and_a_handover_is_none():
    node = busy_node(instance="n1")
    one, two = Exporter({"job": "a", "instance": "n1"}), Exporter({"job": "b", "instance": "n1"})
    run(node, 0, 120, scrapes=[one, two])
    assert both(one, two).total.energy_joules == pytest.approx(12_000, abs=1600)
    old, new = Exporter({"instance": "old"}), Exporter({"instance": "new"})
    leaving, coming = busy_node(instance="old", first_joules=1e6), Exporter({}, gpus=("GPU-a",))
    coming.scrape(3000)
    new.pages.append(coming.pages.pop())
    coming.load("a")
    run(leaving, 0, 3060, scrapes=[old])
    run(coming, 3001, 6000, scrapes=[new])
    made = both(old, new)
    assert made.warnings == ()
    assert made.total.energy_joules == pytest.approx(6060 * 100, abs=60 * 100)


def test_pods_of_exporter_and_server_are_not_mixed_up():
    """With honor_labels on Kubernetes: GPUs' series have the exporter's pod, which changes when it restarts."""
    node = busy_node(instance="node-1")
    run(node, 0, 60, scrapes=[node])
    node.restart()
    run_later = len(node.pages)
    node.load("a")
    run(node, 60, 120, scrapes=[node])
    store: Store = {}
    for (name, labels), samples in node.store().items():
        is_served = "server" in dict(labels)
        for pod, pages in (("x-1", node.pages[:run_later]), ("x-2", node.pages[run_later:])):
            own = (
                {"pod": "chat-0", "namespace": "chat"}
                if is_served
                else {"pod": pod, "namespace": "monitoring"}
            )
            part = store.setdefault((name, labels | frozenset(own.items())), {})
            part.update({page.at: samples[page.at] for page in pages if page.at in samples})
    got, found = counted(store, -1, 120)
    made = report(got, found, -1, 120)
    assert len(made.coverage) == 1
    assert [(row.namespace, row.name) for row in made.rows] == [
        ("chat", "a"),
        ("", "not covered"),
        ("", "total"),
    ]
    assert made.total.energy_joules == totals(counted(node.store(), -1, 120)[0])[catalog.GPU_ENERGY.name]
    assert (made.warnings, adds_up(made)) == ((), True)


def test_restart_between_two_pieces_is_seen():
    sighting, key = Sighting(), ("0", "GPU-a")
    sighting.take({key: Series({}, [15.0, 30.0], [100.0, 200.0])}, keep=False)
    sighting.take({key: Series({}, [30.0, 45.0, 60.0], [200.0, 10.0, 20.0])}, keep=False)
    assert list(sighting.page_seconds) == [15, 30, 45, 60]
    assert sighting.life().restart_seconds == (45,)
