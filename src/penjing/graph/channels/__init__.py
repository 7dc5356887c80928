"""Channel analysis: one rule per op tells which slices of tensors must be removed together, and why others must stay."""
