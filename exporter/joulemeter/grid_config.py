"""The section `grid` of the configuration: where the power comes from, and who is asked about it."""

from dataclasses import dataclass, replace
from zoneinfo import ZoneInfo

from joulemeter import grids, zones
from joulemeter.grids import ConstantSource, LiveSource, Place, Source
from joulemeter.grids.static import WORLD, Static
from joulemeter.model import Signal
from joulemeter.settings import Section, shown, suggestion


@dataclass(frozen=True, slots=True)
class GridSettings:
    """Where the carbon intensity comes from; the first source with a fresh answer wins."""

    zone: str | None = None
    """Where the power comes from: a country's ISO 3166 code, EU, or a zone such as US-CAL-CISO.
    None: the country of `cloud_region`, else the world."""
    cloud_region: tuple[str, str] | None = None
    """Cloud region such as aws/eu-west-3, for its country and for sources that know regions."""
    latitude: float | None = None
    """Coordinates for sources that find the zone themselves, in degrees; `zone` is still needed for the others."""
    longitude: float | None = None
    """See `latitude`."""
    sources: tuple[Source, ...] = (Static(WORLD),)
    """Best first; each has its settings under its name. After those listed, the shipped annual average."""

    def place(self, site: ZoneInfo | None) -> Place:
        """Return where that is; `site` is the site's time zone."""
        country = zones.country_of(self.cloud_region) if self.cloud_region else WORLD
        return Place(self.zone or country, self.cloud_region, self.latitude, self.longitude, site)


def read_grid(section: Section, site: ZoneInfo | None) -> GridSettings:
    """Read the section `grid`; `site` is the site's time zone."""
    coordinates = section.section("coordinates")
    settings = GridSettings(
        zone=section.converted("zone", None, zones.zone),
        cloud_region=section.converted("cloud_region", None, zones.cloud_region),
        latitude=coordinates.number("latitude", None, low=-90, high=90),
        longitude=coordinates.number("longitude", None, low=-180, high=180),
    )
    if (settings.latitude is None) != (settings.longitude is None):
        section.problem("coordinates", "expected both latitude and longitude")
    coordinates.finish()
    place = settings.place(site)
    names = _source_names(section)
    sources = {name: grids.by_name(name).configured(section.section(name), place) for name in names}
    constant = next((name for name, source in sources.items() if isinstance(source, ConstantSource)), None)
    for index, (name, source) in enumerate(sources.items()):
        asked = isinstance(source, LiveSource) and source.signal is Signal.AVERAGE
        if asked and constant is not None and index > names.index(constant):
            problem = f"{name!r} is never asked, for {constant!r} before it always answers; put it before"
            section.problem(f"sources[{index}]", problem)
    for name in set(grids.names()) - set(names):
        section.section(name)  # settings of a source that is not used now may stay
    section.finish()
    return replace(settings, sources=tuple(sources.values()))


def _source_names(section: Section) -> list[str]:
    known = grids.names()
    names: list[str] = []
    for index, name in enumerate(section.items("sources", ("static",))):
        place = f"sources[{index}]"
        if not isinstance(name, str) or name not in known:
            section.problem(place, f"unknown value {shown(name)}; {suggestion(name, known)}")
        elif name in names:
            section.problem(place, f"{name!r} is already in the list; name each source once")
        else:
            names.append(name)
    return names
