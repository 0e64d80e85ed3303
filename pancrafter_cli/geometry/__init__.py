"""Pure geometry: grids, resampling, degrading, tiling, registration. Arrays and numbers in and out."""
