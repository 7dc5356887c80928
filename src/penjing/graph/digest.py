"""A hash that tells the weights of two networks apart."""

import hashlib

import torch
from torch import Tensor


def digest(tensors: dict[str, Tensor]) -> str:
    """Returns a hash of names, dtypes, shapes and values, which doesn't depend on device and memory layout."""
    total = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        if not isinstance(tensor, Tensor):  # extra state of the user's own modules has no common form
            continue
        value = tensor.detach().cpu().contiguous()
        total.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        total.update(value.flatten().view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return total.hexdigest()
