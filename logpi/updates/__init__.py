"""How parameters move: gradient steps, a trust-region step, the optimiser, and how a batch is cut
to fit memory."""

__all__: list[str] = []
