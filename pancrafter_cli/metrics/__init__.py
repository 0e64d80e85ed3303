"""Quality indices with a reference, on arrays in DN and float64."""
