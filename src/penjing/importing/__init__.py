"""Trained networks from elsewhere, as modules or graphs: one folder per source, imported when it is asked for."""
