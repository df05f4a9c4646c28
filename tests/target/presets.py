"""The vLLM configurations that the tests run against."""

# vLLM's CPU default of 128 makes a cached verification compute up to 127 tokens again;
# 32 is the smallest that its CPU attention takes.
BLOCK_SIZE = 32
MAX_MODEL_LEN = 4096
KV_CACHE_GIB = 1

SERVED_NAME = "smol"

_SCALE_OUT = ["--enable-scale-out", "--enable-prompt-tokens-details"]

PRESETS: dict[str, list[str]] = {
    # For exact comparisons: near-ties are rare, and a test may ask for the whole distribution.
    "float32": ["--dtype", "float32", "--max-logprobs", "-1", *_SCALE_OUT],
    # What a server in production is like, with everything on that a sidecar can use.
    "bfloat16": ["--dtype", "bfloat16", *_SCALE_OUT],
    # A server started with no thought of a sidecar: no cached-suffix endpoint, no cached-token counts.
    "bfloat16-plain": ["--dtype", "bfloat16"],
    "float32-plain": ["--dtype", "float32", "--max-logprobs", "-1"],
}


def arguments(preset: str, model: str, port: int) -> list[str]:
    """The words after `vllm` on the command line."""
    return [
        "serve", model,
        "--served-model-name", SERVED_NAME,
        "--host", "127.0.0.1",
        "--port", str(port),
        "--max-model-len", str(MAX_MODEL_LEN),
        "--block-size", str(BLOCK_SIZE),
        "--enforce-eager",  # compiling takes two minutes here and decodes no faster
        "--distributed-executor-backend", "uni",
        *PRESETS[preset],
    ]  # fmt: skip


# One OpenMP thread for each server, placed by the kernel: vLLM's own choice binds the threads of
# every server to the same core.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": str(KV_CACHE_GIB),
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    # The routes by which trainers pause a server and change its weights.
    "VLLM_SERVER_DEV_MODE": "1",
    "OMP_NUM_THREADS": "1",
}

# The CPU server's prompt log-probabilities of cached positions are uninitialised memory, and where that is not a
# number the whole reply fails. Filled memory comes out as zeros. The plain presets are left as they are.
FILL_MEMORY = {"MALLOC_PERTURB_": "255"}


def environment(preset: str) -> dict[str, str]:
    """What the server's environment holds beside the caller's own."""
    return ENVIRONMENT if preset.endswith("-plain") else ENVIRONMENT | FILL_MEMORY
