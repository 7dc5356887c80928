"""Which values stand on which grid: where a graph is rounded for a target, and what stays in floating point.

A target's capabilities list in tables the ops that it fuses. The graph is rewritten so that more of it can be integer, the
sites of its roundings are found, and quantise/dequantise pairs are inserted there.
"""
