"""Which slices of which tensors go together: a rule per op, the groups that follow, and why some stay."""
