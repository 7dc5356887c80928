"""The weights of each layer: the user's choice of grid and grain for them, and how they come to stand on that grid."""
