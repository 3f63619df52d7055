"""What is remembered of a server's answers, and what is said of them."""

import logging

from joulemeter.errors import PageError, ServerUnreachableError
from joulemeter.runtime.health import ServerHealth

HTML = PageError("not_metrics", "chat: this is HTML")
DOWN = ServerUnreachableError("chat: cannot connect")


def test_one_line_for_each_change(caplog):
    caplog.set_level(logging.INFO)
    health = ServerHealth("chat")
    for error in (DOWN, DOWN, HTML, None, None, HTML, HTML, None):
        if error:
            health.failed(error)
        else:
            health.answered(0.01, "vllm 0.32.0")
    assert [record.getMessage() for record in caplog.records] == [
        "chat: cannot connect; its energy is pending",
        "server chat: answers, vllm 0.32.0",
        "chat: this is HTML; its energy is pending",
        "server chat: answers, vllm 0.32.0",
    ]


def test_first_answer_is_told(caplog):
    caplog.set_level(logging.INFO)
    ServerHealth("chat").answered(0.01, "vllm")
    assert [record.getMessage() for record in caplog.records] == ["server chat: answers, vllm"]


def test_problem_is_the_latest_and_refusals_are_counted_by_reason():
    health = ServerHealth("chat")
    assert health.problem is None
    for error in (DOWN, HTML, PageError("bad_value", "chat: NaN"), HTML):
        health.failed(error)
        assert health.problem == str(error)
    assert health.refused == {"not_metrics": 2, "bad_value": 1}
    health.answered(0.02, "vllm")
    assert health.problem is None
    assert health.refused.total() == 3
    assert health.durations.value().sum == 0.02
