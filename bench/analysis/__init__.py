"""Benchmark of the analysis: false rollbacks and time to detection, beside what others do, on the same streams."""
