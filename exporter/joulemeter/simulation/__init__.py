"""A simulated node: virtual GPUs behind the real NVML binding, virtual servers behind real HTTP.

`virtual_nvml.c` is a library with NVML's ABI that the unmodified pynvml loads; `library` builds and loads it.
It answers from a shared file (`layout`, `state`) in which any process can change what GPUs are and how they
fail, and in which each virtual server writes its power (`draw`). A virtual server (`server`) is a process:
seeded requests (`workload`) run through an engine that batches as vLLM does (`engine`) at the cost of a
physics of `physics` and `pairs`, in real time (`serving`), and show on a page like vLLM's (`vllm_page`). `node`
starts a whole node.

Everything is exact and known: `NvmlState.energy_joules` and a server's `/simulation/truth` are the ground
truth to which measurements are compared.
"""
