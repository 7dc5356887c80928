"""What calibration data gives: the grids of activations, and the noise that rounding makes in each layer."""
