"""Changing a graph: nodes written in the place of others."""
