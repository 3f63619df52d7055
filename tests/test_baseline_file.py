"""Baselines as text: nothing is lost on the way, and a file that is not one is refused with place and remedy."""

import json

import pytest
from baseline_windows import KEY, window
from test_baseline import LEARN_SECONDS, learned

from joulemeter.baseline_file import decode, decode_dated, encode
from joulemeter.errors import BaselineError


@pytest.mark.parametrize("windows", [0, 100, 400, 800])
def test_nothing_is_lost(windows: int):
    baseline = learned(windows)
    text = encode([baseline], 7.0)
    ((again,), saved_at) = decode_dated(text, source="x")
    assert saved_at == 7.0
    assert encode([again], 7.0) == text
    assert (again.id, again.key, again.state) == (baseline.id, KEY, baseline.state)
    assert again.coefficients == baseline.coefficients


def test_learning_goes_on_where_it_was():
    without, halfway = learned(800), learned(402)  # after a whole row, for the one begun is lost
    (again,) = decode(encode([halfway], 0.0), source="x")
    for number in range(402, 800):
        again.learn(
            window(number),
            fresh_seconds=10.0,
            learn_seconds=LEARN_SECONDS,
            now_timestamp_seconds=1000.0 + 10 * number,
        )
    assert encode([again], 0.0) == encode([without], 0.0)


def broken(**changes: object) -> str:
    whole = json.loads(encode([learned(800)], 0.0))
    whole["baselines"][0] |= changes
    return json.dumps(whole)


BAD = {
    "not JSON text": "{",
    "not a file of baselines": "[]",
    "not a file of baselines (no format": '{"version": 1}',
    "version 2 of the form, this release reads 1": '{"format": "joulemeter-baselines", "version": 2}',
    "'saved_at_timestamp_seconds' is missing": '{"format": "joulemeter-baselines", "version": 1}',
    "baselines[0]: gpus: expected a whole number from 1, got 0": broken(gpus=0),
    "baselines[0]: state: expected 'learning' or 'frozen', got 'melted'": broken(state="melted"),
    "baselines[0]: expected a number >= 0, got -1": broken(started_at_timestamp_seconds=-1),
    "baselines[0]: 'learning' is missing": broken(state="learning"),
    "baselines[0]: joules_per: coefficients of both bases are needed": broken(joules_per={}),
    "baselines[0]: joules_per.engine: expected available_second": broken(
        joules_per={"engine": {"step": 1.0}, "load": {}}
    ),
    "baselines[0]: expected text, got 3": broken(model=3),
    "baselines[0]: expected a number >= 0, got nan": broken(ranges={"batch": [0, 1]}).replace(
        '"ranges": {"batch": [0, 1]}', '"ranges": {"batch": [0, NaN]}'
    ),
    "baselines[0]: 'list' object has no attribute 'items'": broken(ranges=[]),
    "two baselines of one model": json.dumps(
        {
            **json.loads(broken()),
            "baselines": 2 * json.loads(broken())["baselines"],
        }
    ),
}


@pytest.mark.parametrize(("message", "text"), BAD.items(), ids=BAD)
def test_what_is_no_such_file_is_refused(message: str, text: str):
    with pytest.raises(BaselineError) as caught:
        decode(text, source="state/baselines.json")
    assert str(caught.value).startswith("state/baselines.json: ")
    assert message in str(caught.value)
    assert ";" in str(caught.value), "the remedy"
