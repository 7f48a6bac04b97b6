"""Quicker equals of a model's own modules, each checked against them before it is used."""
