"""Rollouts: policies meet environments and prompts, and rows come out. Import the module of the one
you need."""
