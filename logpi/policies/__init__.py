"""Policies: what chooses actions. Each has `evaluate(batch) -> Evaluation`; import the module of the one you need."""
