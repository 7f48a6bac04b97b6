"""Gymnasium: vector environments, spaces as numbers, published settings, and the grid world."""
