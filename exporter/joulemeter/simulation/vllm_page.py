"""The metrics page of a virtual server: the families of a vLLM 0.32.0 page, moving when vLLM moves them.

Generated tokens move with every step. A prompt's tokens move once, when its prefill is complete, cache hits
included. A step that completes no token is not in `iteration_tokens_total` (a histogram), which takes
computed prompt tokens and generated ones. Prefix cache counters move when a request is admitted. What a
virtual server does not do stays 0.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from joulemeter.simulation.engine import Request, StepResult
from joulemeter.simulation.vllm_families import CACHE_CONFIG, FAMILIES, Family, length_buckets


@dataclass(frozen=True, slots=True)
class Served:
    """A finished request and its moments, as monotonic times."""

    request: Request
    arrived_seconds: float
    started_seconds: float
    first_token_seconds: float
    finished_seconds: float


class VllmPage:
    """The families of one engine, in `registry`."""

    def __init__(
        self, model: str, registry: CollectorRegistry, *, max_model_tokens: int, cache_tokens: int
    ) -> None:
        self._cache_tokens = cache_tokens
        self._counters: dict[tuple[str, ...], Counter] = {}
        self._gauges: dict[tuple[str, ...], Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        for family in FAMILIES:
            self._register(family, model, registry, max_model_tokens)
        config = {**CACHE_CONFIG, "engine": "0", "kv_cache_size_tokens": str(cache_tokens)}
        info = Gauge(
            "vllm:cache_config_info",
            "Information of the LLMEngine CacheConfig",
            sorted(config),
            registry=registry,
        )
        info.labels(**config).set(1)
        self._gauges["vllm:engine_sleep_state", "awake"].set(1)

    def step(self, result: StepResult, seconds: float) -> None:
        """Show a step that has just ended and took so long."""
        for request in result.started:
            self._counters["vllm:prefix_cache_queries",].inc(request.prompt_tokens)
            self._counters["vllm:prefix_cache_hits",].inc(request.cached_tokens)
            self._counters["vllm:prompt_tokens_cached_by_source", "device"].inc(request.cached_tokens)
        for request in result.prefilled:
            computed_tokens = request.prompt_tokens - request.cached_tokens
            self._counters["vllm:prompt_tokens",].inc(request.prompt_tokens)
            self._counters["vllm:prompt_tokens_by_source", "local_compute"].inc(computed_tokens)
            self._counters["vllm:prompt_tokens_by_source", "local_cache_hit"].inc(request.cached_tokens)
            self._counters["vllm:prompt_tokens_cached",].inc(request.cached_tokens)
        if result.generated_tokens:
            self._counters["vllm:generation_tokens",].inc(result.generated_tokens)
            self._histograms["vllm:iteration_tokens_total"].observe(_iteration_tokens(result))
        latency = self._histograms["vllm:inter_token_latency_seconds"]
        for _ in range(result.generated_tokens - len(result.prefilled)):
            latency.observe(seconds)
        self._gauges["vllm:num_requests_running",].set(result.running)
        self._gauges["vllm:num_requests_waiting",].set(result.waiting)
        self._gauges["vllm:num_requests_waiting_by_reason", "capacity"].set(result.waiting)
        self._gauges["vllm:kv_cache_usage_perc",].set(min(1.0, result.context_tokens / self._cache_tokens))

    def first_token(self, seconds: float) -> None:
        """Show that a request's first token came this long after its arrival."""
        self._histograms["vllm:time_to_first_token_seconds"].observe(seconds)

    def finished(self, served: Served) -> None:
        """Show a finished request."""
        self._counters["vllm:request_success", "length"].inc()
        for name, value in _request_values(served):
            self._histograms[f"vllm:{name}"].observe(value)

    def _register(
        self, family: Family, model: str, registry: CollectorRegistry, max_model_tokens: int
    ) -> None:
        labels = {"model_name": model, "engine": "0"} if family.has_engine else {"model_name": model}
        names = (*labels, family.label) if family.label else tuple(labels)
        children = [{**labels, family.label: value} for value in family.label_values] or [labels]
        keys: list[tuple[str, ...]] = [(family.name, value) for value in family.label_values] or [
            (family.name,)
        ]
        match family.kind:
            case "counter":
                counter = Counter(family.name, family.help, names, registry=registry)
                self._counters |= {k: counter.labels(**c) for k, c in zip(keys, children, strict=True)}
            case "gauge":
                gauge = Gauge(family.name, family.help, names, registry=registry)
                self._gauges |= {k: gauge.labels(**c) for k, c in zip(keys, children, strict=True)}
            case "histogram":
                buckets = family.buckets or length_buckets(max_model_tokens)
                histogram = Histogram(family.name, family.help, names, buckets=buckets, registry=registry)
                self._histograms[family.name] = histogram.labels(**labels)


def _iteration_tokens(result: StepResult) -> int:
    computed = sum(request.prompt_tokens - request.cached_tokens for request in result.prefilled)
    return computed + result.generated_tokens


def _request_values(served: Served) -> Iterator[tuple[str, float]]:
    request = served.request
    decode_seconds = served.finished_seconds - served.first_token_seconds
    yield "request_prompt_tokens", request.prompt_tokens
    yield "request_generation_tokens", request.output_tokens
    yield "request_max_num_generation_tokens", request.output_tokens
    yield "request_params_n", 1
    yield "request_params_max_tokens", request.output_tokens
    yield "request_time_per_output_token_seconds", decode_seconds / max(1, request.output_tokens - 1)
    yield "e2e_request_latency_seconds", served.finished_seconds - served.arrived_seconds
    yield "request_queue_time_seconds", served.started_seconds - served.arrived_seconds
    yield "request_inference_time_seconds", served.finished_seconds - served.started_seconds
    yield "request_prefill_time_seconds", served.first_token_seconds - served.started_seconds
    yield "request_decode_time_seconds", decode_seconds
    yield "request_num_preemptions", 0
    yield "request_prefill_kv_computed_tokens", request.prompt_tokens - request.cached_tokens


VERSION: Final = "0.32.0"
"""The vLLM release whose page this is."""
