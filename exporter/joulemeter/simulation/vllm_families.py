"""The families of a vLLM 0.32.0 metrics page, in its order, as recorded from a real one."""

# ruff: noqa: E501 - help texts are vLLM's

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal


@dataclass(frozen=True, slots=True)
class Family:
    """One family; `name` is without `_total`, and `label` is beside `model_name` and `engine`."""

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    help: str
    label: str = ""
    label_values: tuple[str, ...] = ()
    has_engine: bool = True
    buckets: tuple[float, ...] = ()
    """Of a histogram; none stands for `length_buckets` of the longest context."""


def length_buckets(max_model_tokens: int) -> tuple[float, ...]:
    """Return vLLM's buckets for lengths: 1, 2, 5, 10, ... up to the longest context."""
    steps = (float(step * 10**power) for power in range(10) for step in (1, 2, 5))
    return tuple(bucket for bucket in steps if bucket <= max_model_tokens)


_FIRST_TOKEN: Final = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
    20.0,
    40.0,
    80.0,
    160.0,
    640.0,
    2560.0,
)
_TOKEN: Final = (
    0.01,
    0.025,
    0.05,
    0.075,
    0.1,
    0.15,
    0.2,
    0.3,
    0.4,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
    20.0,
    40.0,
    80.0,
)
_REQUEST: Final = (
    0.3,
    0.5,
    0.8,
    1.0,
    1.5,
    2.0,
    2.5,
    5.0,
    10.0,
    15.0,
    20.0,
    30.0,
    40.0,
    50.0,
    60.0,
    120.0,
    240.0,
    480.0,
    960.0,
    1920.0,
    7680.0,
)
_STEP: Final = (1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0)
_COUNT: Final = (1.0, 2.0, 5.0, 10.0, 20.0)

FAMILIES: Final = (
    Family(
        "counter",
        "vllm:estimated_flops_per_gpu",
        "Estimated number of floating point operations per GPU (for Model Flops Utilization calculations).",
    ),
    Family(
        "counter",
        "vllm:estimated_read_bytes_per_gpu",
        "Estimated number of bytes read from memory per GPU (for Model Flops Utilization calculations).",
    ),
    Family(
        "counter",
        "vllm:estimated_write_bytes_per_gpu",
        "Estimated number of bytes written to memory per GPU (for Model Flops Utilization calculations).",
    ),
    Family("gauge", "vllm:num_requests_running", "Number of requests in model execution batches."),
    Family("gauge", "vllm:num_requests_waiting", "Number of requests waiting to be processed."),
    Family(
        "gauge",
        "vllm:num_requests_waiting_by_reason",
        "Number of waiting requests by reason. Reason labels: 'capacity' = waiting for scheduling capacity; 'deferred' = deferred by transient constraints (LoRA budget, KV transfer, blocked status). Sum of all reasons equals vllm:num_requests_waiting.",
        label="reason",
        label_values=("capacity", "deferred"),
    ),
    Family(
        "gauge",
        "vllm:engine_sleep_state",
        "Engine sleep state; awake = 0 means engine is sleeping; awake = 1 means engine is awake; weights_offloaded = 1 means sleep level 1; discard_all = 1 means sleep level 2.",
        label="sleep_state",
        label_values=("awake", "weights_offloaded", "discard_all"),
    ),
    Family("gauge", "vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage."),
    Family(
        "counter", "vllm:prefix_cache_queries", "Prefix cache queries, in terms of number of queried tokens."
    ),
    Family("counter", "vllm:prefix_cache_hits", "Prefix cache hits, in terms of number of cached tokens."),
    Family(
        "counter",
        "vllm:external_prefix_cache_queries",
        "External prefix cache queries from KV connector cross-instance cache sharing, in terms of number of queried tokens.",
    ),
    Family(
        "counter",
        "vllm:external_prefix_cache_hits",
        "External prefix cache hits from KV connector cross-instance cache sharing, in terms of number of cached tokens.",
    ),
    Family(
        "counter", "vllm:mm_cache_queries", "Multi-modal cache queries, in terms of number of queried items."
    ),
    Family("counter", "vllm:mm_cache_hits", "Multi-modal cache hits, in terms of number of cached items."),
    Family("counter", "vllm:num_preemptions", "Cumulative number of preemption from the engine."),
    Family("counter", "vllm:prompt_tokens", "Number of prefill tokens processed."),
    Family(
        "counter",
        "vllm:prompt_tokens_by_source",
        "Number of prompt tokens by source.",
        label="source",
        label_values=("local_compute", "local_cache_hit", "external_kv_transfer"),
    ),
    Family("counter", "vllm:prompt_tokens_cached", "Number of cached prompt tokens (local + external)."),
    Family(
        "counter",
        "vllm:prompt_tokens_cached_by_source",
        "Prefix-cache hit tokens by the cache tier that supplied them: device (local HBM), host (offloaded to DRAM), disk, p2p (transferred from another vLLM instance) or external_unspecified. Counted at admission; sums to vllm:prefix_cache_hits + vllm:external_prefix_cache_hits.",
        label="source",
        label_values=("device", "host", "p2p", "disk", "external_unspecified"),
    ),
    Family("counter", "vllm:generation_tokens", "Number of generation tokens processed."),
    Family(
        "counter",
        "vllm:request_success",
        "Count of successfully processed requests.",
        label="finished_reason",
        label_values=("stop", "length", "abort", "error", "repetition"),
    ),
    Family(
        "counter",
        "vllm:admission_rejections",
        "Number of admission attempts rejected by a queue limit, by reason.",
        label="reason",
        label_values=("max_num_queued_reqs", "max_num_queued_tokens"),
        has_engine=False,
    ),
    Family("histogram", "vllm:request_prompt_tokens", "Number of prefill tokens processed."),
    Family("histogram", "vllm:request_generation_tokens", "Number of generation tokens processed."),
    Family(
        "histogram",
        "vllm:iteration_tokens_total",
        "Histogram of number of tokens per engine_step.",
        buckets=_STEP,
    ),
    Family(
        "histogram",
        "vllm:request_max_num_generation_tokens",
        "Histogram of maximum number of requested generation tokens.",
    ),
    Family("histogram", "vllm:request_params_n", "Histogram of the n request parameter.", buckets=_COUNT),
    Family("histogram", "vllm:request_params_max_tokens", "Histogram of the max_tokens request parameter."),
    Family(
        "histogram",
        "vllm:time_to_first_token_seconds",
        "Histogram of time to first token in seconds.",
        buckets=_FIRST_TOKEN,
    ),
    Family(
        "histogram",
        "vllm:inter_token_latency_seconds",
        "Histogram of inter-token latency in seconds.",
        buckets=_TOKEN,
    ),
    Family(
        "histogram",
        "vllm:request_time_per_output_token_seconds",
        "Histogram of time_per_output_token_seconds per request.",
        buckets=_TOKEN,
    ),
    Family(
        "histogram",
        "vllm:e2e_request_latency_seconds",
        "Histogram of e2e request latency in seconds.",
        buckets=_REQUEST,
    ),
    Family(
        "histogram",
        "vllm:request_queue_time_seconds",
        "Histogram of time spent in WAITING phase for request.",
        buckets=_REQUEST,
    ),
    Family(
        "histogram",
        "vllm:request_inference_time_seconds",
        "Histogram of time spent in RUNNING phase for request.",
        buckets=_REQUEST,
    ),
    Family(
        "histogram",
        "vllm:request_prefill_time_seconds",
        "Histogram of time spent in PREFILL phase for request.",
        buckets=_REQUEST,
    ),
    Family(
        "histogram",
        "vllm:request_decode_time_seconds",
        "Histogram of time spent in DECODE phase for request.",
        buckets=_REQUEST,
    ),
    Family(
        "histogram",
        "vllm:request_num_preemptions",
        "Histogram of the number of times a request was preempted.",
        buckets=(1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0),
    ),
    Family(
        "histogram",
        "vllm:request_prefill_kv_computed_tokens",
        "Histogram of new KV tokens computed during prefill (excluding cached tokens).",
    ),
)

CACHE_CONFIG: Final[Mapping[str, str]] = MappingProxyType(
    {
        "_block_size_resolved": "True",
        "block_size": "16",
        "cache_dtype": "auto",
        "cache_hit_alignment_tokens": "None",
        "effective_attention_block_size": "16",
        "enable_mamba_shared_prefix_checkpoint": "False",
        "enable_prefix_caching": "True",
        "gpu_memory_utilization": "0.92",
        "hash_block_size": "None",
        "is_attention_free": "False",
        "kv_cache_dtype_skip_layers": "[]",
        "kv_cache_layout": "None",
        "kv_cache_max_concurrency": "None",
        "kv_cache_memory_bytes": "None",
        "kv_offloading_backend": "native",
        "kv_offloading_size": "None",
        "kv_sharing_fast_prefill": "False",
        "mamba_block_size": "None",
        "mamba_cache_dtype": "auto",
        "mamba_cache_mode": "none",
        "mamba_page_size_padded": "None",
        "mamba_ssm_cache_dtype": "auto",
        "num_cpu_blocks": "None",
        "num_gpu_blocks": "None",
        "num_gpu_blocks_override": "None",
        "prefix_cache_retention_interval": "0",
        "prefix_caching_hash_algo": "sha256",
        "prefix_match_unit": "None",
        "replayssm_buffer_len": "16",
        "skip_page_size_padded": "None",
        "sliding_window": "None",
        "swa_bounded_replay": "True",
        "use_kda_recoverssm": "False",
        "use_replayssm": "False",
        "user_specified_block_size": "False",
    }
)
"""Labels of `vllm:cache_config_info` that do not depend on the server."""
