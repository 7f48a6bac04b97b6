"""Benchmarks: how good a policy is on held-out items, by which measure, and whether it has seen
them before."""
