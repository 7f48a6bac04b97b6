"""Chains of jobs on models that are made on the spot, and the tasks that only they use. Nothing is
downloaded."""
