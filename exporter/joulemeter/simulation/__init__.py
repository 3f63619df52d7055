"""A simulated node: virtual GPUs behind the real NVML binding, virtual servers behind real HTTP."""
