"""A small reference flow engine, and leads for it: for the demo, tests and benchmarks."""
