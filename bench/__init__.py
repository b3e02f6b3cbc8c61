"""Side-by-side benchmarks, each one command, each prints a table. Imports the product; nothing imports it."""
