"""Quality indices in DN and float64, of arrays or of rasters of any size read window by window."""
