"""What the gateway costs beside LiteLLM's proxy and Portkey's gateway: latency, requests a second, streams, cache hits, memory, faults.

    python -m bench.gateway                      all of it, under ten minutes
    python -m bench.gateway --only backstop      ours and the ceiling alone

Each gateway has a core of its own, one after the other; callers and model share another one, and are one native program, `httpload`.
"""
