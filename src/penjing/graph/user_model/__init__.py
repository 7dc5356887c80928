"""Writing a graph's tensors and sizes back into the user's own module."""
