"""Whether the canary holds its objectives: counter deltas, blocks, indicators, rules, verdicts; and the metric sources they come from.

Pure: `objective`, `samples`, `reading`, `state`, `deltas`, `blocks`, `indicators`, `quantile`, `rule`, `threshold`, `evidence`,
`evaluation`, `queries`, `answers`. Adapters, which do I/O: `source`, `prometheus`. Nothing here knows Kubernetes, weights or steps.
"""
