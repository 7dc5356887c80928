"""Graphs in files: `.penjing`, plain and compact, read without the model's class and without pickle."""

from penjing.storage.graphs import load, load_exported, save

__all__ = ["load", "load_exported", "save"]
