"""The state directory: one writer, whole files, what is broken kept aside, requests done once."""

import asyncio
import json
from pathlib import Path

import pytest
from baseline_windows import KEY, USER, window
from test_baseline import learned

from joulemeter.baseline_file import decode, encode
from joulemeter.baselines import Baselines
from joulemeter.errors import BaselineError, StateError, StateInUseError
from joulemeter.runtime import state as state_module
from joulemeter.runtime.baseline_command import change, exported, import_request, listed
from joulemeter.runtime.baseline_keeper import BaselineKeeper
from joulemeter.runtime.state import StateDirectory

WEEK_SECONDS = 604_800.0
FROZEN = learned(800)


def directory(tmp_path: Path, *, saved: bool = True) -> StateDirectory:
    state = StateDirectory(tmp_path / "state", lambda: 1e6)
    with state.held():
        if saved:
            state.save(encode([FROZEN], 1e6))
    return state


def test_what_is_saved_is_loaded_again(tmp_path: Path):
    state = directory(tmp_path)
    assert encode(state.load(), 1e6) == state.file.read_text()
    assert sorted(path.name for path in state.path.iterdir()) == ["baselines.json", "lock", "requests"]


def test_what_is_against_writing_is_told_before_anything_is_made(tmp_path: Path):
    assert StateDirectory(tmp_path / "a/b").problem() is None
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a").touch()
    said = StateDirectory(tmp_path / "a/b").problem()
    assert (
        said
        == f"state_dir {tmp_path}/a/b: {tmp_path}/a is no directory; give the daemon a directory of its own"
    )


def test_baselines_that_may_not_be_looked_at_are_an_error_and_none_are_none(tmp_path: Path):
    assert StateDirectory(tmp_path / "none").look() == ([], None)
    with pytest.raises(BaselineError, match=r"cannot be read: .*; check its name and permissions"):
        StateDirectory(tmp_path / ("x" * 300)).look()


def test_one_writer(tmp_path: Path):
    state = directory(tmp_path)
    with state.held(), pytest.raises(StateInUseError, match="in use by another joulemeter; stop it, or"):
        StateDirectory(state.path).held().__enter__()
    with state.held():
        pass


def test_file_that_cannot_be_used_is_kept_aside_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    state = directory(tmp_path)
    state.file.write_text(state.file.read_text()[:1000])
    assert state.load() == []
    assert "it is kept as baselines.json.unusable-1000000, and every baseline is learned anew" in caplog.text
    assert len((state.path / "baselines.json.unusable-1000000").read_text()) == 1000
    caplog.clear()
    assert state.load() == []
    assert caplog.text == ""


def test_disk_that_is_full_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    state = directory(tmp_path)
    before = state.file.read_text()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(state_module.os, "fsync", full)
    with pytest.raises(StateError, match=r"No space left on device; make room"):
        state.save("{}")
    assert state.file.read_text() == before
    assert len(list(state.path.iterdir())) == 3


def test_directory_that_cannot_be_made_is_an_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="cannot be written"):
        StateDirectory(tmp_path / "file" / "state").held().__enter__()


async def kept(state: StateDirectory, baselines: Baselines, *, seconds: float) -> None:
    stop = asyncio.Event()
    with state.held():
        task = asyncio.create_task(BaselineKeeper(baselines, state).run(stop))
        await asyncio.sleep(seconds)
        stop.set()
        await task


async def test_daemon_saves_when_it_stops(tmp_path: Path):
    state = directory(tmp_path, saved=False)
    baselines = Baselines(WEEK_SECONDS, lambda: 5.0)
    for number in range(402):
        baselines.settle_window(USER, KEY, window(number), 10.0 * (number + 1))
    await kept(state, baselines, seconds=0.01)
    (again,) = state.load()
    assert again.learning is not None
    assert again.learning.learned_seconds == pytest.approx(4020.0)


async def test_daemon_does_requests_once_and_says_what_it_refuses(tmp_path: Path):
    state = directory(tmp_path)
    baselines = Baselines(WEEK_SECONDS, lambda: 5.0)
    baselines.adopt(state.load(), replace=True)
    accept = state.leave({"do": "accept", "id": FROZEN.id})
    strange = state.leave({"do": "dance"})
    (state.path / "requests" / "9.json").write_text("{")
    await kept(state, baselines, seconds=0.01)
    assert not accept.exists()
    assert state.requests() == []
    assert [one.state for one in state.load()] == ["learning"]
    assert "not a request of this release: {'do': 'dance'}" in state.refused(strange).read_text()
    assert (state.path / "requests" / "9.refused").exists()


# ------------------------------------------------------------------------------------------ the command


def test_list_says_age_and_progress(tmp_path: Path):
    state = directory(tmp_path)
    with state.held():
        other = learned(402)
        other.id, other.key = "other", KEY.__class__("qwen", "H100", 4)
        state.save(encode([FROZEN, other], 1e6 - 120))
    assert listed(state, 7.0) == [
        f"2 in {state.path}, saved 2 min ago",
        f"{FROZEN.id}  llama on 1 x H100: frozen 11.5 days ago",
        "other  qwen on 4 x H100: learning, 0.0 of 7 days",
    ]
    assert listed(StateDirectory(tmp_path / "none"), 7.0) == [
        f"none in {tmp_path / 'none'} yet; a daemon saves them every few minutes"
    ]


def test_what_is_exported_can_be_imported_elsewhere(tmp_path: Path):
    file = tmp_path / "baselines.json"
    file.write_text(exported(directory(tmp_path), []))
    elsewhere = StateDirectory(tmp_path / "elsewhere", lambda: 1e6)
    elsewhere.path.mkdir()
    assert change(elsewhere, import_request(file), WEEK_SECONDS) == f"imported {FROZEN.id}"
    assert encode(elsewhere.load(), 0.0) == encode([FROZEN], 0.0)


def test_export_names_what_it_cannot(tmp_path: Path):
    state = directory(tmp_path)
    with pytest.raises(BaselineError, match="no baseline 'x'"):
        exported(state, ["x"])
    with state.held():
        state.save(encode([learned(402)], 1e6))
    with pytest.raises(BaselineError, match="no frozen baseline"):
        exported(state, [])
    with pytest.raises(BaselineError, match="still learning; export it once it is frozen"):
        exported(state, [learned(1).id])


def test_changes_without_a_daemon_are_done_here(tmp_path: Path):
    state = directory(tmp_path)
    with pytest.raises(BaselineError, match="no baseline 'x'; `joulemeter baseline list` shows them"):
        change(state, {"do": "accept", "id": "x"}, WEEK_SECONDS)
    assert "new normal" in change(state, {"do": "accept", "id": FROZEN.id}, WEEK_SECONDS)
    (anew,) = state.load()
    assert (anew.state, anew.key) == ("learning", KEY)
    assert change(state, {"do": "reset", "id": "all"}, WEEK_SECONDS) == "all 1 forgotten"
    assert state.load() == []
    with pytest.raises(StateError, match="there is no such directory"):
        change(StateDirectory(tmp_path / "none"), {"do": "reset", "id": "all"}, WEEK_SECONDS)


def test_a_daemon_that_does_not_answer_is_said(tmp_path: Path):
    state = directory(tmp_path)
    with state.held(), pytest.raises(StateError, match="not taken within"):
        change(StateDirectory(state.path), {"do": "reset", "id": "all"}, WEEK_SECONDS, wait_seconds=0.2)
    assert len(state.requests()) == 1


def test_a_reader_never_sees_half_a_file(tmp_path: Path):
    state = directory(tmp_path)
    before = state.file.stat().st_ino
    state.save(encode([], 5.0))
    assert state.file.stat().st_ino != before
    assert decode(state.file.read_text(), source="x") == []
    assert json.loads(state.file.read_text())["saved_at_timestamp_seconds"] == 5.0
