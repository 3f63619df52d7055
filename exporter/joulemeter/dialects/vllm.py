"""vLLM (V0 and V1), Aphrodite, and vLLM behind Ray Serve or as a Triton backend.

Read from vLLM 0.33.0 (v1/metrics/loggers.py, stats.py), its metrics modules back to 0.6.6, and recorded
from 0.32.0:

* generation moves with every engine step, prompts once per request when the last prefill chunk is done,
  hits of the prefix cache at admission; all stay counted when the client hangs up, requests do not;
* `iteration_tokens_total` is a histogram, and its count is the number of engine steps;
* `time_to_first_token_seconds` counts a request once its prefill is done, each of n > 1 samples alone;
* `kv_cache_usage_perc` (0 to 1; `gpu_cache_usage_perc` until 0.11, both from 0.9.2) leaves out blocks that only
  the prefix cache keeps, and counts a block that several requests share once. What it is a share of stands in
  the labels of `cache_config_info`, which names the engine but no model; `kv_cache_size_tokens` is right for
  models with several kinds of layers too, blocks times their size are not. Triton's backend has no such series;
* `model_name` is the first served name; Triton's backend calls that label `model`;
* data-parallel engines have a series each.
"""

from typing import Final

from joulemeter.dialects import IdentityQuestion
from joulemeter.dialects.histograms import LengthRule
from joulemeter.dialects.rules import MODELS, CounterDialect, InLabels, Rule
from joulemeter.model import Length, Moves, Role

WITH_CACHED: Final = Rule(Role.PROMPT_WITH_CACHED, "prompt_tokens_total", Moves.FIRST_TOKEN)
KV_TOKENS: Final = InLabels(
    "cache_config_info", (("kv_cache_size_tokens",), ("num_gpu_blocks", "block_size"))
)

PLUGIN: Final = CounterDialect(
    name="vllm",
    prefixes=("vllm:", "aphrodite:", "ray_vllm_"),
    always=(
        Rule(Role.GENERATION, "generation_tokens_total", Moves.STEP),
        Rule(Role.STEPS, "iteration_tokens_total_count", Moves.STEP),
        Rule(Role.FIRST_TOKENS, "time_to_first_token_seconds_count", Moves.FIRST_TOKEN),
        Rule(Role.REQUESTS, "request_success_total", Moves.FINISH),
        Rule(Role.RUNNING, "num_requests_running"),
        Rule(Role.WAITING, "num_requests_waiting"),
        Rule(Role.CONTEXT, "kv_cache_usage_perc", times=KV_TOKENS),
        Rule(Role.CONTEXT, "gpu_cache_usage_perc", times=KV_TOKENS, unless="kv_cache_usage_perc"),
    ),
    ways=(
        # Since 0.16. The other sources are left alone: until 0.19 they count the last token of a wholly
        # cached prompt as a hit although it is computed; prompt_tokens_cached_total does not.
        (
            Rule(
                Role.PROMPT,
                "prompt_tokens_by_source_total",
                Moves.FIRST_TOKEN,
                where=("source", "local_compute"),
            ),
            Rule(Role.CACHED_PROMPT, "prompt_tokens_cached_total", Moves.FIRST_TOKEN),
        ),
        # From 0.9.2 to 0.15.
        (Rule(Role.CACHED_PROMPT, "prefix_cache_hits_total", Moves.ADMISSION), WITH_CACHED),
        # V1 before that. Before 0.9 it counts blocks, which we cannot tell apart: hits are then understated.
        (Rule(Role.CACHED_PROMPT, "gpu_prefix_cache_hits_total", Moves.ADMISSION), WITH_CACHED),
        # V0, and Ray before the first hit.
        (WITH_CACHED,),
    ),
    lengths=(
        LengthRule(Length.PROMPT, "request_prompt_tokens"),
        LengthRule(Length.COMPUTED_PROMPT, "request_prefill_kv_computed_tokens"),  # since 0.13
        LengthRule(Length.GENERATION, "request_generation_tokens"),
    ),
    model_labels=("model_name", "model"),
    filter_path="/metrics/",  # another application than /metrics, which ignores name[]
    questions=(IdentityQuestion("/version", version_at=("version",)), MODELS),
)
