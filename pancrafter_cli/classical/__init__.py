"""Classical pansharpening: scene-wide moments, coefficients fitted to them, and fusion pixel by pixel. Pure arrays."""
