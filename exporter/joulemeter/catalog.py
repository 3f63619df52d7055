"""Every exported metric: name, type, help and labels. The page is the public API; a rename is a breaking change."""

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One family of the page. `name` is as queried: counters with `_total`, histograms without a suffix."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


GPU: Final = ("gpu", "uuid")
SERVED: Final = ("server", "model", "namespace", "pod")

PHASES: Final = ("prefill", "decode", "idle", "unsplit")
TOKEN_KINDS: Final = ("prompt", "cached_prompt", "generation")
UNATTRIBUTED_REASONS: Final = ("no_server", "server_unreachable", "idle", "meter_gap")
LOST_TOKEN_REASONS: Final = ("server_unreachable", "no_gpu")
REFUSAL_REASONS: Final = (
    "http_status",
    "redirect",
    "too_large",
    "not_metrics",
    "bad_value",
    "too_many_series",
)
THROTTLE_REASONS: Final = ("power_cap", "thermal", "sync_boost", "board_limit", "reliability")
METHODS: Final = ("exclusive", "shared")
BASES: Final = ("engine", "load")
BASELINE_STATES: Final = ("learning", "frozen")
SPLITS: Final = ("measured", "estimated", "prior", "none")
STEPS: Final = ("counted", "timed", "guessed", "none")
SOURCE_KINDS: Final = ("meter", "gpu", "server", "grid", "kubernetes")
GRID_OUTCOMES: Final = ("ok", "auth", "rate_limited", "no_data", "invalid", "error")
GRID_SIGNALS: Final = ("average", "marginal")
GRID_HORIZONS: Final = ("1h", "3h", "6h", "12h", "24h")
COST_COMPONENTS: Final = ("electricity", "compute")
GRID_QUALITIES: Final = ("measured", "estimated", "forecast", "stale", "static")

# ---------------------------------------------------------------------------------------------- energy
GPU_ENERGY = Metric(
    "joulemeter_gpu_energy_joules_total",
    "counter",
    "Energy of the GPU board, measured since the daemon first saw its counter.",
    GPU,
)
MODEL_ENERGY = Metric(
    "joulemeter_model_energy_joules_total",
    "counter",
    "GPU energy attributed to a model by phase; the split between phases is an estimate"
    " (joulemeter_server_info names the method).",
    (*SERVED, "phase"),
)
UNATTRIBUTED_ENERGY = Metric(
    "joulemeter_unattributed_energy_joules_total",
    "counter",
    "GPU energy used by nobody we can name, by reason.",
    (*GPU, "reason"),
)
PENDING_ENERGY = Metric(
    "joulemeter_pending_energy_joules", "gauge", "GPU energy measured and not attributed yet.", GPU
)
RETIRED_ENERGY = Metric(
    "joulemeter_retired_energy_joules",
    "gauge",
    "Final totals of energy series that were dropped because their model or pod is long gone; never use with rate().",
)

# ---------------------------------------------------------------------------------------------- work
MODEL_TOKENS = Metric(
    "joulemeter_model_tokens_total",
    "counter",
    "Tokens by kind (prompt: computed, without cache hits), advancing together with the energy of their window.",
    (*SERVED, "kind"),
)
MODEL_REQUESTS = Metric("joulemeter_model_requests_total", "counter", "Finished requests.", SERVED)
MODEL_REQUESTS_RUNNING = Metric(
    "joulemeter_model_requests_running",
    "gauge",
    "Requests in the server's batch at the last observation.",
    SERVED,
)
MODEL_REQUEST_ENERGY = Metric(
    "joulemeter_model_request_energy_joules",
    "histogram",
    "Prefill and decode energy of a finished request, estimated from histograms of lengths that the server keeps"
    " (absent where it keeps none); mean and median hold, other quantiles only to the bucket they lie in.",
    SERVED,
    buckets=(7.5, 19.0, 47.0, 120.0, 300.0, 750.0, 1900.0, 4700.0, 12000.0, 30000.0),
)
UNATTRIBUTED_TOKENS = Metric(
    "joulemeter_unattributed_tokens_total",
    "counter",
    "Tokens of windows whose energy could not be attributed, by reason.",
    (*SERVED, "kind", "reason"),
)

# ---------------------------------------------------------------------------------------------- expectation
MODEL_COMPARED_ENERGY = Metric(
    "joulemeter_model_compared_energy_joules_total",
    "counter",
    "Measured energy, idle included, of exactly the windows that advanced the expected energy;"
    " over it, it is the regression signal.",
    (*SERVED, "basis", "baseline"),
)
MODEL_EXPECTED_ENERGY = Metric(
    "joulemeter_model_expected_energy_joules_total",
    "counter",
    "What this energy should have been by the baseline: for the same engine work, or for the same offered load.",
    (*SERVED, "basis", "baseline"),
)
MODEL_BASELINE_INFO = Metric(
    "joulemeter_model_baseline_info",
    "gauge",
    "1; which baseline the model is compared with, and whether it still learns.",
    (*SERVED, "baseline", "state"),
)
MODEL_BASELINE_IN_RANGE = Metric(
    "joulemeter_model_baseline_in_range",
    "gauge",
    "1 if the baseline has seen a load such as that of the last minutes, else 0.",
    SERVED,
)

# ---------------------------------------------------------------------------------------------- carbon
MODEL_CO2E = Metric(
    "joulemeter_model_co2e_grams_total",
    "counter",
    "Location-based CO2e of the attributed energy at the time of use, PUE included.",
    (*SERVED, "phase"),
)
GPU_CO2E = Metric(
    "joulemeter_gpu_co2e_grams_total",
    "counter",
    "Location-based CO2e of all the GPU's energy at the time of use, PUE included.",
    GPU,
)
UNATTRIBUTED_CO2E = Metric(
    "joulemeter_unattributed_co2e_grams_total",
    "counter",
    "CO2e of GPU energy used by nobody we can name, by reason.",
    (*GPU, "reason"),
)
PENDING_CO2E = Metric(
    "joulemeter_pending_co2e_grams", "gauge", "CO2e of GPU energy measured and not attributed yet.", GPU
)
RETIRED_CO2E = Metric(
    "joulemeter_retired_co2e_grams",
    "gauge",
    "Final totals of CO2e series that were dropped because their model or pod is long gone; never use with rate().",
)

# ---------------------------------------------------------------------------------------------- cost
COST: Final = ("component", "currency")
MODEL_COST = Metric(
    "joulemeter_model_cost_total",
    "counter",
    "Cost of the attributed energy at the time of use, PUE included (electricity), and of the GPU time that it took"
    " (compute).",
    (*SERVED, "phase", *COST),
)
GPU_COST = Metric(
    "joulemeter_gpu_cost_total",
    "counter",
    "Cost of all the GPU's energy at the time of use, PUE included (electricity), and of its time (compute).",
    (*GPU, *COST),
)
UNATTRIBUTED_COST = Metric(
    "joulemeter_unattributed_cost_total",
    "counter",
    "Cost of GPU energy used by nobody we can name, by reason.",
    (*GPU, "reason", *COST),
)
PENDING_COST = Metric(
    "joulemeter_pending_cost", "gauge", "Cost of GPU energy measured and not attributed yet.", (*GPU, *COST)
)
RETIRED_COST = Metric(
    "joulemeter_retired_cost",
    "gauge",
    "Final totals of cost series that were dropped because their model or pod is long gone; never use with rate().",
    COST,
)
ENERGY_CREDIT = Metric(
    "joulemeter_energy_credit_total",
    "counter",
    "What negative prices gave back for all GPUs' energy, PUE included; no part of any cost.",
    ("currency",),
)
PRICE = Metric(
    "joulemeter_energy_price_per_kwh",
    "gauge",
    "Price of electricity that joules are priced with now.",
    ("currency",),
)
PUE = Metric(
    "joulemeter_pue_ratio",
    "gauge",
    "Power usage effectiveness that grams and the cost of electricity are multiplied with.",
)

# ---------------------------------------------------------------------------------------------- grid
GRID_INTENSITY = Metric(
    "joulemeter_grid_carbon_intensity_grams_per_kwh",
    "gauge",
    "Carbon intensity in gCO2e per kWh: the average one prices joules now, the marginal one is only shown.",
    ("zone", "signal"),
)
GRID_VALID_FROM = Metric(
    "joulemeter_grid_carbon_intensity_valid_from_timestamp_seconds",
    "gauge",
    "Unix time from which the intensity is valid: the begin of its interval.",
    ("zone", "signal"),
)
GRID_FORECAST = Metric(
    "joulemeter_grid_carbon_intensity_forecast_grams_per_kwh",
    "gauge",
    "Average carbon intensity that the source in use expects at a time to come, where it says.",
    ("zone", "horizon"),
)
GRID_RENEWABLE = Metric(
    "joulemeter_grid_renewable_ratio",
    "gauge",
    "Share of the zone's power from renewable sources, 0 to 1, where the source in use says.",
    ("zone",),
)
GRID_CARBON_FREE = Metric(
    "joulemeter_grid_carbon_free_ratio",
    "gauge",
    "Share of the zone's power that is free of carbon, 0 to 1, where the source in use says.",
    ("zone",),
)
GRID_QUALITY = Metric(
    "joulemeter_grid_quality",
    "gauge",
    "1 for the quality of the intensity in use, 0 for the others.",
    ("zone", "quality"),
)
GRID_INFO = Metric(
    "joulemeter_grid_info",
    "gauge",
    "1; where the intensity in use comes from.",
    ("zone", "source", "factor", "boundary", "granularity", "dataset"),
)
GRID_LAST_SUCCESS = Metric(
    "joulemeter_grid_last_success_timestamp_seconds",
    "gauge",
    "Unix time of the last answer of a live source that could be used.",
    ("zone", "source"),
)
GRID_FETCHES = Metric(
    "joulemeter_grid_fetches_total",
    "counter",
    "Times a live source was asked, by what came of it.",
    ("source", "outcome"),
)

# ---------------------------------------------------------------------------------------------- hardware
GPU_POWER = Metric("joulemeter_gpu_power_watts", "gauge", "Power draw of the GPU board.", GPU)
GPU_POWER_LIMIT = Metric("joulemeter_gpu_power_limit_watts", "gauge", "Enforced power limit.", GPU)
GPU_UTILIZATION = Metric(
    "joulemeter_gpu_utilization_ratio",
    "gauge",
    "Share of the last period in which a kernel ran, 0 to 1.",
    GPU,
)
GPU_MEMORY_USED = Metric("joulemeter_gpu_memory_used_bytes", "gauge", "Device memory in use.", GPU)
GPU_MEMORY_TOTAL = Metric("joulemeter_gpu_memory_total_bytes", "gauge", "Device memory.", GPU)
GPU_TEMPERATURE = Metric("joulemeter_gpu_temperature_celsius", "gauge", "Temperature of the GPU.", GPU)
GPU_THROTTLE = Metric(
    "joulemeter_gpu_throttle_seconds_total",
    "counter",
    "Time in which clocks were held back, by reason, since the daemon first saw the GPU.",
    (*GPU, "reason"),
)
GPU_INFO = Metric(
    "joulemeter_gpu_info",
    "gauge",
    "1; product and driver of the GPU, and where its joules come from.",
    (*GPU, "product", "driver_version", "energy_source"),
)
CROSSCHECK = Metric(
    "joulemeter_energy_crosscheck_ratio",
    "gauge",
    "Power integrated over the last minute, divided by the energy counter's increase.",
    GPU,
)
METER_RESETS = Metric(
    "joulemeter_energy_meter_resets_total",
    "counter",
    "Times the GPU's energy counter restarted or jumped implausibly.",
    GPU,
)

# ---------------------------------------------------------------------------------------------- the estimate
JOULES_PER_TOKEN = Metric(
    "joulemeter_model_energy_joules_per_token",
    "gauge",
    "Estimated: what one more token would take, a computed prompt token or a generated one in a batch that runs anyway."
    " Informative; energy over tokens is the ratio of the counters.",
    (*SERVED, "phase"),
)
PHASE_UNCERTAINTY = Metric(
    "joulemeter_model_phase_uncertainty_ratio",
    "gauge",
    "How far the split between this model's phases and the others on its GPUs may be off: posterior standard deviation"
    " over value. At 0.3 and above the phases follow the hardware's prior.",
    (*SERVED, "phase"),
)

# ---------------------------------------------------------------------------------------------- servers
SERVER_INFO = Metric(
    "joulemeter_server_info",
    "gauge",
    "1; how this server's energy is attributed, and on what hardware.",
    (*SERVED, "dialect", "version", "method", "split", "steps", "product"),
)
SERVER_GPU_INFO = Metric(
    "joulemeter_server_gpu_info", "gauge", "1; this server uses this GPU.", (*SERVED, *GPU)
)
SERVER_GPU_UTILIZATION = Metric(
    "joulemeter_server_gpu_utilization_ratio",
    "gauge",
    "Mean share of time in which kernels of this server's processes ran on a GPU that servers share, 0 to 1, as NVML"
    " samples it: a second opinion beside the estimated split, and no part of it.",
    ("server", *GPU),
)

# ---------------------------------------------------------------------------------------------- ourselves
SOURCE_UP = Metric(
    "joulemeter_source_up", "gauge", "1 if the last read of the source succeeded.", ("kind", "source")
)
SAMPLE_INTERVAL = Metric(
    "joulemeter_sample_interval_seconds",
    "histogram",
    "Time between two rounds of energy readings.",
    buckets=(0.01, 0.025, 0.045, 0.055, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0),
)
OBSERVATION_DURATION = Metric(
    "joulemeter_observation_duration_seconds",
    "histogram",
    "Time that a server took to answer us.",
    ("source",),
    buckets=(0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0),
)
REFUSED_PAGES = Metric(
    "joulemeter_refused_pages_total",
    "counter",
    "Answers of a server that could not be used, by reason.",
    ("source", "reason"),
)
LAST_TICK = Metric(
    "joulemeter_last_tick_timestamp_seconds", "gauge", "Unix time of the snapshot that this page shows."
)
SIMULATED = Metric("joulemeter_simulated", "gauge", "1 if the readings come from a simulated node.")
BUILD_INFO = Metric(
    "joulemeter_build_info",
    "gauge",
    "1; the version of joulemeter and of Python.",
    ("version", "pythonversion"),
)

# ---------------------------------------------------------------------------------------------- our process
PROCESS_CPU = Metric(
    "process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds."
)
PROCESS_MEMORY = Metric("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.")
PROCESS_VIRTUAL_MEMORY = Metric("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.")
PROCESS_START = Metric(
    "process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds."
)
PROCESS_OPEN_FDS = Metric("process_open_fds", "gauge", "Number of open file descriptors.")
PROCESS_MAX_FDS = Metric("process_max_fds", "gauge", "Maximum number of open file descriptors.")
"""These six have the names that Prometheus's clients in all languages give them."""

ALL: Final = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
