"""llama.cpp's llama-server with --metrics.

Read from llama.cpp (tools/server/server-task.cpp, server-context.cpp, tree 0c1e57098) and recorded from
builds of 2026-10:

* no labels: the model's name comes from /v1/models;
* prompts leave cache hits out and move once per request, when its prefill yields the first token, however
  many batches that took;
* generated tokens move when a request ends or is aborted. Decode calls times the mean number of busy slots
  per call is the live count: one too many per extra prefill batch, and without speculative tokens;
* numbers have six significant digits: counters move in steps of 10 above a million, and the live count, a
  product of two such numbers, is off by up to one in 1e5 and may fall by as much. A fall of it alone is no
  restart;
* what requests keep in the KV cache only /slots tells (llamacpp_slots.py);
* `n_tokens_max` is a high-water mark typed counter, and the rate gauges restart with every scrape: neither
  is read. Nor is the header Process-Start-Time-Unix, which holds monotonic microseconds.
"""

from typing import Final

from joulemeter.dialects import IdentityQuestion, llamacpp_slots
from joulemeter.dialects.rules import MODELS, CounterDialect, Rule
from joulemeter.model import Moves, Role

PLUGIN: Final = CounterDialect(
    name="llamacpp",
    prefixes=("llamacpp:",),
    always=(
        Rule(Role.PROMPT, "prompt_tokens_total", Moves.FIRST_TOKEN),
        Rule(Role.CACHED_PROMPT, "prompt_tokens_cached_total", Moves.ADMISSION),
        Rule(Role.GENERATION, "tokens_predicted_total", Moves.FINISH),
        Rule(Role.LIVE_GENERATION, "n_decode_total", Moves.STEP, times="n_busy_slots_per_decode"),
        Rule(Role.STEPS, "n_decode_total", Moves.STEP),
        Rule(Role.RUNNING, "requests_processing"),
        Rule(Role.WAITING, "requests_deferred"),
    ),
    side_page=llamacpp_slots.PAGE,
    questions=(MODELS, IdentityQuestion("/props", version_at=("build_info",))),
)
