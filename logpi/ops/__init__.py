"""The mathematics, one equation in each part: advantages, ratios, surrogates, KL penalties,
aggregation weights.

Every part is a frozen dataclass that prints itself, compares, and has its equation and its source.
Only torch and `logpi.types` are imported. Left out: models and I/O.
"""

from logpi.ops import advantages, groups, kl, ratios, surrogates, time, weights

__all__ = ["advantages", "groups", "kl", "ratios", "surrogates", "time", "weights"]
