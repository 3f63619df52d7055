"""Text Generation Inference (TGI).

Read from TGI 3.3.6-dev0 (router/src/server.rs, validation.rs, backends/v3/src/backend.rs), not recorded:

* every step is timed, prefill and decode apart (`batch_forward_duration`);
* no model label: name and version come from /info;
* prompts count when a request is validated, before it queues (and if it is rejected later), generated
  tokens when it ends; counters do not end in `_total`;
* first tokens are not counted, nor the tokens that running requests keep: `batch_current_max_tokens` is what
  they may grow to;
* there is no counter of cached prompt tokens although version 3 caches prefixes: prompts are all counted as
  computed.
"""

from typing import Final

from joulemeter.dialects import IdentityQuestion
from joulemeter.dialects.rules import CounterDialect, Rule
from joulemeter.model import Moves, Role

PLUGIN: Final = CounterDialect(
    name="tgi",
    prefixes=("tgi_",),
    always=(
        Rule(Role.PROMPT, "request_input_length_sum", Moves.ADMISSION),
        Rule(Role.GENERATION, "request_generated_tokens_sum", Moves.FINISH),
        Rule(Role.STEPS, "batch_inference_count", Moves.STEP, where=("method", "decode")),
        Rule(Role.PREFILL_SECONDS, "batch_forward_duration_sum", Moves.STEP, where=("method", "prefill")),
        Rule(Role.DECODE_SECONDS, "batch_forward_duration_sum", Moves.STEP, where=("method", "decode")),
        Rule(Role.REQUESTS, "request_success", Moves.FINISH),
        Rule(Role.RUNNING, "batch_current_size"),
        Rule(Role.WAITING, "queue_size"),
    ),
    questions=(IdentityQuestion("/info", model_at=("model_id",), version_at=("version",)),),
)
