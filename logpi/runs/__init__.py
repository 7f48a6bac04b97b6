"""Runs: what goes to disk and to the eyes. A run's directory, its checkpoints, metrics, trackers,
progress and pictures; and reading a run back.

Left out: when any of it happens (`logpi.train`). Nothing here knows what a policy or an algorithm
is.
"""
