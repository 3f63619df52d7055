"""A simulated node over some days: its pages, scrape by scrape, from the real books.

Energy, tokens and requests are the simulator's, attribution, baselines, grams and money the daemon's own.
"""

import heapq
from collections.abc import Callable, Iterator
from dataclasses import replace

from benchmarks.history.plan import Grain, Group, Node
from benchmarks.history.room import Room
from benchmarks.truth import books as truth_books
from benchmarks.truth.books import BEGIN_SECONDS, VLLM, to_books
from benchmarks.truth.run import Chunk, simulate
from joulemeter.accounting import Pricer
from joulemeter.accounts import Terms
from joulemeter.attributor import Attributor
from joulemeter.bookkeeper import Bookkeeper
from joulemeter.model import EnergyReading, Observation
from joulemeter.snapshot import Snapshot, compose


def pages(
    node: Node, grain: Grain, note: Callable[[Chunk], None] | None = None
) -> Iterator[tuple[float, Snapshot]]:
    """Yield what a node's page showed at each scrape, with its Unix time; `note` is given the truth on the way."""
    books, room, boards = _books(node), Room(node), node.boards
    for group in node.groups:
        for name, server in zip(group.servers, group.scenario.servers, strict=True):
            books.expect_server(name, server.model, BEGIN_SECONDS, counts_tokens=True)
            books.own(name, frozenset(gpu.uuid for gpu in group.gpus), BEGIN_SECONDS)
    first, last = next(iter(boards)), node.groups[-1].servers[-1]
    events = heapq.merge(*(_events(group, grain, room, note) for group in node.groups), key=_at_seconds)
    for event in events:
        if isinstance(event, EnergyReading):
            books.meter(boards[event.uuid], [room.with_power(event)])
            if event.uuid == first:
                for gpu in node.unused:
                    joules = node.unused_watts * (event.at_seconds - BEGIN_SECONDS)
                    reading = EnergyReading(gpu.uuid, joules, event.at_seconds)
                    books.meter(gpu, [room.with_power(reading)])
            continue
        books.observe(event, has_phases=True)
        if event.server != last:
            continue  # all are asked together
        books.settle(event.at_seconds)
        seconds = event.at_seconds - BEGIN_SECONDS
        if seconds > 0 and seconds % grain.scrape_seconds == 0:
            yield node.begin_timestamp_seconds + seconds, compose(books, room.around(seconds))


def _at_seconds(event: EnergyReading | Observation) -> float:
    return event.at_seconds


def _events(
    group: Group, grain: Grain, room: Room, note: Callable[[Chunk], None] | None
) -> Iterator[EnergyReading | Observation]:
    """Yield what the books are given of a group, under the names that it has on its node."""

    def noted() -> Iterator[Chunk]:
        for chunk in simulate(group.scenario, requests=grain.requests):
            room.look(group, chunk)
            if note is not None:
                note(chunk)
            yield chunk

    scenario = group.scenario
    uuids = {of.uuid: gpu.uuid for of, gpu in zip(truth_books.gpus(scenario), group.gpus, strict=True)}
    names = {truth_books.server_name(index): name for index, name in enumerate(group.servers)}
    for event in to_books(scenario, noted(), VLLM, read_seconds=grain.read_seconds, requests=grain.requests):
        if isinstance(event, EnergyReading):
            yield replace(event, uuid=uuids[event.uuid])
        else:
            yield replace(event, server=names[event.server])


def _books(node: Node) -> Bookkeeper:
    """Return fresh books with the node's price."""
    price = Pricer(
        node.intensity,
        pue=node.pue,
        tariff=node.tariff,
        unix_offset_seconds=lambda: node.offset_seconds,
    )
    return Bookkeeper(Terms(), price=price, attributor=Attributor(), baselines=node.baselines)
