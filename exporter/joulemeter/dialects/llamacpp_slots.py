"""llama-server's /slots: the tokens that each slot keeps in the KV cache, which its metrics page does not tell.

Read from llama.cpp (tools/server/server-context.cpp, tree 0c1e57098), not recorded: `n_prompt_tokens` of a slot counts
all tokens in its cache, generated ones too; builds of early 2025 have no such field. An idle slot keeps
the tokens of its last task for the next one, and reads none of them. The page is on unless --no-slots is given (501).

Its live counts are not read: they vanish with their task, so that of each request the tokens since the
last look would be lost, where the product on the metrics page loses none.
"""

import json
from typing import Any, Final

from joulemeter.dialects import SidePage
from joulemeter.dialects.pages import MAX_VALUE
from joulemeter.errors import PageError
from joulemeter.model import Role, RoleReading

SERIES: Final = "/slots n_prompt_tokens"


def read(body: str) -> tuple[RoleReading, ...]:
    """Return the tokens in busy slots; nothing from a build that does not tell them.

    Raises:
        PageError: it is no list of slots. The message leaves the body out, which may hold prompts.
    """
    try:
        slots = json.loads(body)
    except (ValueError, RecursionError):
        slots = None
    if not isinstance(slots, list) or not all(isinstance(slot, dict) for slot in slots):
        raise PageError("not_metrics", "/slots is no list of slots; without it there is no context to read")
    busy = [slot.get("n_prompt_tokens") for slot in slots if slot.get("is_processing") is True]
    if not all(map(_is_count, busy)):
        return ()
    return (RoleReading(Role.CONTEXT, "", SERIES, float(sum(busy)), None),)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_VALUE  # a bool is an int too


PAGE: Final = SidePage("/slots", (Role.CONTEXT,), read)
