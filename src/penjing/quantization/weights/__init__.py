"""The weights of each layer: the user's choice of grid and grain for them, and how they are rounded to that grid."""
