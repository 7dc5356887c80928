"""What calibration data tells of a quantisation: the grids of activations, and the noise that rounding makes in each layer."""
