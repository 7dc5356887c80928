"""Small networks of every kind in plain PyTorch, so that tests need no model library."""
