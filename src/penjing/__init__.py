"""Penjing makes trained PyTorch models small and fast on the device they must run on."""
