"""Policies: what chooses actions. Each has `evaluate(batch) -> PolicyOutput`; import the module of
the one you need."""
