"""SGLang with --enable-metrics.

Read from SGLang 0.5.23 (srt/observability/metrics_collector.py, scheduler_components/metrics_reporter.py),
older versions back to 0.4.6, and recorded from 0.5.23:

* `realtime_tokens_total` moves with every prefill chunk and decode step; its decode leaves out the first
  token, which prefill makes, and its prefill includes the one-token probes of /health_generate;
* `prompt_tokens_total`, `generation_tokens_total` and `cached_tokens_total` move when a request ends;
* `time_to_first_token_seconds` counts a request at its first token, streaming or not;
* `inter_token_latency_seconds` moves with every token of a streaming request. A request that does not stream is
  looked at every fifty tokens, and those after the last look are never counted (recorded: 4 times 49 of 2392);
* `num_used_tokens` leaves out what only the prefix cache keeps, counts shared prefixes once, and moves as rarely
  as the gauge of running requests: with a prefill batch, and every forty decode steps;
* series appear with their first use, at their full value, and `is_streaming` was added to them by 0.5.19;
* steps are timed only with SGLANG_ENABLE_METRICS_DEVICE_TIMER=1 in its environment;
* with --enable-metrics-for-all-schedulers every rank publishes the same tokens.
"""

from typing import Final

from joulemeter.dialects import IdentityQuestion
from joulemeter.dialects.histograms import LengthRule
from joulemeter.dialects.rules import MODELS, CounterDialect, Rule
from joulemeter.model import Length, Moves, Role

REALTIME: Final = "realtime_tokens_total"
FORWARD: Final = "forward_execution_seconds_total"
FORWARD_MODES: Final = (
    (Role.PREFILL_SECONDS, ("extend",)),
    (Role.DECODE_SECONDS, ("decode", "target_verify", "draft_extend")),
)
"""Steps of mode `mixed` (--enable-mixed-chunk) are in neither: they are split like the rest."""

PLUGIN: Final = CounterDialect(
    name="sglang",
    prefixes=("sglang:",),
    always=(
        Rule(Role.GENERATION, "generation_tokens_total", Moves.FINISH),
        Rule(Role.FIRST_TOKENS, "time_to_first_token_seconds_count", Moves.FIRST_TOKEN),
        Rule(Role.INTER_TOKEN_SECONDS, "inter_token_latency_seconds_sum", Moves.STEP),
        *(
            Rule(role, FORWARD, Moves.STEP, where=("category", mode))
            for role, modes in FORWARD_MODES
            for mode in modes
        ),
        Rule(Role.REQUESTS, "num_requests_total", Moves.FINISH),
        Rule(Role.RUNNING, "num_running_reqs"),
        Rule(Role.WAITING, "num_queue_reqs"),
        Rule(Role.CONTEXT, "num_used_tokens"),
    ),
    ways=(
        # Since 0.5.7 to 0.5.10.
        (
            Rule(Role.PROMPT, REALTIME, Moves.STEP, where=("mode", "prefill_compute")),
            Rule(Role.CACHED_PROMPT, REALTIME, Moves.STEP, where=("mode", "prefill_cache")),
            Rule(Role.LIVE_GENERATION, REALTIME, Moves.STEP, where=("mode", "decode")),
        ),
        # Before. cache_source="total" is no sum of the other sources: a request is counted either there or by
        # source (observe_one_finished_request), so all of them are read.
        (
            Rule(Role.PROMPT_WITH_CACHED, "prompt_tokens_total", Moves.FINISH),
            Rule(Role.CACHED_PROMPT, "cached_tokens_total", Moves.FINISH),
        ),
    ),
    lengths=(
        LengthRule(Length.PROMPT, "prompt_tokens_histogram"),
        LengthRule(Length.COMPUTED_PROMPT, "uncached_prompt_tokens_histogram"),
        LengthRule(Length.GENERATION, "generation_tokens_histogram"),
    ),
    model_labels=("model_name",),
    rank_labels=frozenset({"tp_rank", "pp_rank", "moe_ep_rank"}),
    questions=(IdentityQuestion("/server_info", version_at=("version",)), MODELS),
)
