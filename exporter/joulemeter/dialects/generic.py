"""Generic: a server that joulemeter does not know; the configuration says what its series are called."""

from dataclasses import dataclass

from joulemeter.model import Moves


@dataclass(frozen=True, slots=True)
class GenericNames:
    """Sample names of an unknown server's page, and when its counters move."""

    generation: str
    generation_moves: Moves = Moves.FINISH
    prompt: str | None = None
    prompt_includes_cached: bool = False
    prompt_moves: Moves = Moves.FINISH
    cached_prompt: str | None = None
    requests: str | None = None
    running: str | None = None
    waiting: str | None = None
    model_label: str | None = None
