"""Decides which values of a graph are rounded for a target, and which stay in floating point.

A target's capabilities list in tables the ops that it fuses. The graph is rewritten so that more of it can be integer, the
values to round are found, and quantise/dequantise pairs are inserted there.
"""
