"""Objectives: a composition of `ops` parts that scores a batch. Each method family has one file."""

__all__: list[str] = []
