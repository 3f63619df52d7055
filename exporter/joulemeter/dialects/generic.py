"""Any other server whose page counts generated tokens: the configuration says which series is which."""

from dataclasses import dataclass

from joulemeter.dialects import Dialect
from joulemeter.dialects.rules import MODELS, CounterDialect, Rule
from joulemeter.model import Moves, Role


@dataclass(frozen=True, slots=True)
class GenericNames:
    """Sample names as on the page, suffixes included (`x_sum` of a histogram), and when the counters move."""

    generation: str
    """Counter of generated tokens."""
    generation_moves: Moves = Moves.FINISH
    """When it moves: at every step, once per request at its first token, at its end, or at its admission."""
    prompt: str | None = None
    """Counter of prompt tokens. Without it prefill and decode cannot be told apart."""
    prompt_includes_cached: bool = False
    """Whether that counter counts cache hits too."""
    prompt_moves: Moves = Moves.FINISH
    """When the counters of prompt tokens move."""
    cached_prompt: str | None = None
    """Counter of prompt tokens that a cache saved."""
    requests: str | None = None
    """Counter of finished requests."""
    steps: str | None = None
    """Counter of engine steps (forward passes)."""
    first_tokens: str | None = None
    """Counter of requests whose first token is made, such as the count of a histogram of times to it."""
    inter_token_seconds: str | None = None
    """Counter of the seconds between generated tokens, summed over tokens; read where there are no `steps`."""
    running: str | None = None
    """Gauge of requests in the batch."""
    waiting: str | None = None
    """Gauge of queued requests."""
    model_label: str | None = None
    """Label that names the model."""


def generic(names: GenericNames) -> Dialect:
    """Make a dialect of configured names; it recognises a page that has any of them."""
    prompt = Role.PROMPT_WITH_CACHED if names.prompt_includes_cached else Role.PROMPT
    named = (
        (Role.GENERATION, names.generation, names.generation_moves),
        (prompt, names.prompt, names.prompt_moves),
        (Role.CACHED_PROMPT, names.cached_prompt, names.prompt_moves),
        (Role.REQUESTS, names.requests, Moves.FINISH),
        (Role.STEPS, names.steps, Moves.STEP),
        (Role.FIRST_TOKENS, names.first_tokens, Moves.FIRST_TOKEN),
        (Role.INTER_TOKEN_SECONDS, names.inter_token_seconds, Moves.STEP),
        (Role.RUNNING, names.running, None),
        (Role.WAITING, names.waiting, None),
    )
    return CounterDialect(
        name="generic",
        prefixes=("",),
        always=tuple(Rule(role, name, moves) for role, name, moves in named if name),
        model_labels=(names.model_label,) if names.model_label else (),
        questions=(MODELS,),
        has_phases=names.prompt is not None,
    )
