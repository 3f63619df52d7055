"""What a zone and a cloud region can be, and what is suggested for what they cannot."""

import csv
import re
from importlib import resources

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from joulemeter import zones

EXPECTED = (
    "expected a country's two-letter ISO 3166 code such as FR, a zone of it such as US-CAL-CISO, EU or WORLD"
)
MEANT = re.compile(r"did you mean '([^']+)'\?")


def refusal(value: object) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        zones.zone(value)
    return str(caught.value)


def region_refusal(value: object) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        zones.cloud_region(value)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------ zones


@pytest.mark.parametrize(
    ("value", "zone"),
    [
        ("FR", "FR"),
        (" fr ", "FR"),
        ("eu", "EU"),
        ("world", "WORLD"),
        ("XK", "XK"),
        ("US-CAL-CISO", "US-CAL-CISO"),
        ("us-cal-ciso", "US-CAL-CISO"),
        ("DK-DK1", "DK-DK1"),
        ("NO", "NO"),
        ("IN-UP", "IN-UP"),
    ],
)
def test_a_zone_is_a_country_or_a_part_of_one(value: str, zone: str):
    assert zones.zone(value) == zone


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("UK", "GB"),
        ("uk", "GB"),
        ("UK-NIR", "GB-NIR"),
        ("EL", "GR"),
        ("FRA", "FR"),
        ("USA-CAL-CISO", "US-CAL-CISO"),
        ("AND", "AD"),
        ("XKX", "XK"),
        ("FR_COR", "FR-COR"),
        ("EU-DE", "EU"),
        ("FR--A", "FR"),
        ("germany", "DE"),
        ("Germny", "DE"),
        ("United States of America", "US"),
        ("United Kingdom", "GB"),
        ("South Korea", "KR"),
        ("Czechia", "CZ"),
        ("Türkiye", "TR"),
        ("European Union", "EU"),
    ],
)
def test_a_mistake_gets_a_suggestion(value: str, meant: str):
    assert refusal(value) == f"unknown zone {value!r}; did you mean '{meant}'?"


@pytest.mark.parametrize("value", ["", " ", "XX", "XX-YY", "Ger", "qwertz", "Frankreich", "-"])
def test_nothing_is_suggested_for_what_is_close_to_nothing(value: str):
    assert refusal(value) == f"unknown zone {value!r}; {EXPECTED}"


def test_norway_without_quotes_is_no_zone_in_yaml():
    assert refusal(yaml.safe_load("zone: NO")["zone"]) == (
        "expected a zone, got False; YAML reads an unquoted NO as false: put it in quotes, 'NO'"
    )


@pytest.mark.parametrize("value", [5, 1.5, None, ["FR"], {"zone": "FR"}])
def test_a_zone_is_text(value: object):
    assert refusal(value) == f"{EXPECTED}; got {value!r}"


@pytest.mark.parametrize(
    ("value", "region"),
    [("us-east-1", "aws/us-east-1"), ("EU-WEST-3", "aws/eu-west-3"), ("westeurope", "azure/westeurope")],
)
def test_a_cloud_region_is_no_zone_even_where_it_begins_like_a_country(value: str, region: str):
    assert refusal(value) == f"{value!r} is a cloud region; write `cloud_region: {region}` instead of a zone"


@given(st.one_of(st.text(), st.text("ABCEFGKLNRSU-_ ", max_size=8)))
@example("UK-")
@example("FR-\n")
@example("ıt")
@example("WORLD-EU")
def test_what_is_returned_or_suggested_is_a_zone(value: str):
    try:
        got = zones.zone(value)
    except ValueError as error:
        match = MEANT.search(str(error).removeprefix(f"unknown zone {value!r}"))
        got = match[1] if match else "WORLD"
    assert zones.zone(got) == got
    assert got.partition("-")[0] in zones.countries()


def test_countries_are_those_of_iso_3166_and_three_more():
    assert len(zones.countries()) == 249 + 3
    assert zones.countries()["FR"] == "France"
    assert all(re.fullmatch("[A-Z]{2}", code) for code in set(zones.countries()) - {"WORLD"})


def test_every_country_has_one_three_letter_code():
    codes = zones.code_of_alpha3()
    assert sorted(codes.values()) == sorted(set(zones.countries()) - {"EU", "WORLD"})
    assert (codes["FRA"], codes["GBR"], codes["CHE"], codes["CHN"]) == ("FR", "GB", "CH", "CN")
    assert all(re.fullmatch("[A-Z]{3}", code) for code in codes)


def test_every_other_name_leads_to_its_country():
    table = resources.files("joulemeter.zones").joinpath("countries.csv").read_text(encoding="utf-8")
    official = {name.lower() for name in zones.countries().values()}
    rows = [row for row in csv.DictReader(table.splitlines()) if row["other_names"]]
    assert len(rows) > 20
    for row in rows:
        for name in row["other_names"].split("/"):
            assert name.lower() not in official, "tzdata has it already"
            assert refusal(name) == f"unknown zone {name!r}; did you mean '{row['code']}'?"


# ------------------------------------------------------------------------------------------------ cloud regions


@pytest.mark.parametrize(
    ("value", "region", "country"),
    [
        ("aws/eu-west-3", ("aws", "eu-west-3"), "FR"),
        (" GCP / europe-west1 ", ("gcp", "europe-west1"), "BE"),
        ("azure/westeurope", ("azure", "westeurope"), "NL"),
        ("Azure/NorthEurope", ("azure", "northeurope"), "IE"),
        ("gcp/us-central2", ("gcp", "us-central2"), "US"),
    ],
)
def test_a_cloud_region_is_in_a_country(value: str, region: tuple[str, str], country: str):
    assert zones.cloud_region(value) == region
    assert zones.country_of(region) == country


NEWER = "for one that is newer than this release, set `zone` to its country instead"


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (
            "eu-west-3",
            "expected PROVIDER/REGION such as aws/eu-west-3, got 'eu-west-3'; did you mean 'aws/eu-west-3'?",
        ),
        ("paris", "expected PROVIDER/REGION such as aws/eu-west-3, got 'paris'; providers: aws, azure, gcp"),
        (7, "expected PROVIDER/REGION such as aws/eu-west-3, got 7"),
        ("google/europe-west1", "unknown cloud provider 'google'; did you mean 'gcp/europe-west1'?"),
        ("gpc/europe-west1", "unknown cloud provider 'gpc'; did you mean 'gcp'?"),
        ("moon/base-1", "unknown cloud provider 'moon'; known: aws, azure, gcp"),
        ("aws/eu-west-3a", f"unknown region 'eu-west-3a' of aws (did you mean 'aws/eu-west-3'?); {NEWER}"),
        (
            "azure/West Europe",
            f"unknown region 'west europe' of azure (did you mean 'azure/westeurope'?); {NEWER}",
        ),
        ("aws/", f"unknown region '' of aws; {NEWER}"),
        ("gcp/moon", f"unknown region 'moon' of gcp; {NEWER}"),
    ],
)
def test_another_cloud_region_is_refused_with_a_way_out(value: object, says: str):
    assert region_refusal(value) == says


def test_every_region_is_in_a_known_country_and_can_be_configured():
    for provider in ("aws", "azure", "gcp"):
        for region in zones.regions(provider):
            assert zones.cloud_region(f"{provider}/{region}") == (provider, region)
            assert zones.country_of((provider, region)) in zones.countries()
