"""Whether the canary holds its objectives: counter deltas, blocks, indicators, rules, verdicts; and the metric sources they come from.

Adapters, which do I/O: `source`, `prometheus`. Every other module is pure, which the import contract "Verdicts do no I/O" holds.
Nothing here knows Kubernetes, weights or steps.
"""
