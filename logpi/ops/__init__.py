"""The mathematics, one equation a part: advantages, ratios, surrogates, KL penalties, aggregation
weights.

Only torch and `logpi.types` are imported here: no models, no I/O. Every part is a frozen dataclass
that prints itself, compares, carries its equation and its source, and is tested alone.
"""

from logpi.ops import advantages, groups, kl, ratios, surrogates, time, weights

__all__ = ["advantages", "groups", "kl", "ratios", "surrogates", "time", "weights"]
