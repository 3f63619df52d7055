"""`joulemeter baseline`: look at the baselines of a state directory, and change them.

While a daemon runs, it alone writes; what is to change is left for it as a request. Otherwise it is done here.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from joulemeter.baseline import Baseline
from joulemeter.baseline_file import decode, encode
from joulemeter.baselines import Baselines
from joulemeter.errors import BaselineError, StateError, StateInUseError
from joulemeter.runtime.baseline_keeper import LIST_THEM, perform
from joulemeter.runtime.state import StateDirectory, read_text

WAIT_SECONDS: Final = 30.0
DAY_SECONDS: Final = 86_400.0


def described(one: Baseline, learn_days: float, now_timestamp_seconds: float) -> str:
    """Return one line about a baseline."""
    key = one.key
    if one.learning is not None:
        days = one.learning.learned_seconds / DAY_SECONDS
        how = f"learning, {days:.1f} of {learn_days:g} days" + ("" if one.usable else ", not usable yet")
    else:
        frozen_at = one.frozen_at_timestamp_seconds or one.started_at_timestamp_seconds
        how = f"frozen {max(0.0, now_timestamp_seconds - frozen_at) / DAY_SECONDS:.1f} days ago"
    return f"{one.id}  {key.model} on {key.gpus} x {key.product}: {how}"


def listed(state: StateDirectory, learn_days: float) -> list[str]:
    """Return what there is, one line each.

    Raises:
        BaselineError: the file cannot be used.
    """
    found, saved_at = state.look()
    now = state.clock()
    if saved_at is None:
        return [f"none in {state.path} yet; a daemon saves them every few minutes"]
    saved = f"{len(found)} in {state.path}, saved {max(0.0, now - saved_at) / 60:.0f} min ago"
    return [saved, *(described(one, learn_days, now) for one in found)]


def exported(state: StateDirectory, ids: Sequence[str]) -> str:
    """Return frozen baselines as the text of a file: these, or all.

    Raises:
        BaselineError: there is none, or one of them is still learning.
    """
    found = {one.id: one for one in state.look()[0]}
    unknown = [one for one in ids if one not in found]
    if unknown:
        raise BaselineError(f"no baseline {unknown[0]!r} in {state.path}; {LIST_THEM}")
    learning = [one for one in ids if found[one].learning is not None]
    if learning:
        raise BaselineError(f"{learning[0]} is still learning; export it once it is frozen")
    chosen = [found[one] for one in ids] or [one for one in found.values() if one.learning is None]
    if not chosen:
        raise BaselineError(f"no frozen baseline in {state.path}; {LIST_THEM}")
    return encode(chosen, state.clock()) + "\n"


def import_request(file: Path) -> dict[str, Any]:
    """Return the request to take in a file's baselines, checked.

    Raises:
        BaselineError: the file cannot be used.
    """
    text = read_text(file)
    decode(text, source=str(file))
    return {"do": "import", "text": text, "source": str(file)}


def change(
    state: StateDirectory,
    request: dict[str, Any],
    learn_seconds: float,
    *,
    wait_seconds: float = WAIT_SECONDS,
) -> str:
    """Have a request done, by the daemon that holds the directory or else here, and say by whom.

    Raises:
        BaselineError: it was refused.
        StateError: the directory cannot be written, or its daemon does not take the request.
    """
    if not state.path.is_dir():
        raise StateError(f"state_dir {state.path}: there is no such directory; name the one the daemon uses")
    try:
        with state.held():
            baselines = Baselines(learn_seconds, state.clock)
            baselines.adopt(state.load(), replace=True)
            said = perform(baselines, request)
            state.save(encode(baselines.all(), state.clock()))
            return said
    except StateInUseError:
        return _left(state, request, wait_seconds)


def _left(state: StateDirectory, request: dict[str, Any], wait_seconds: float) -> str:
    path = state.leave(request)
    deadline = time.monotonic() + wait_seconds
    while path.exists():
        if time.monotonic() > deadline:
            raise StateError(
                f"{path}: not taken within {wait_seconds:g} s; it will be once the daemon works again"
            )
        time.sleep(0.1)
    refused = state.refused(path)
    if refused.exists():
        reason = read_text(refused).strip()
        refused.unlink()
        raise BaselineError(reason)
    return "done by the running daemon"
