"""From the user's model to a graph of ATen ops that computes the same."""
