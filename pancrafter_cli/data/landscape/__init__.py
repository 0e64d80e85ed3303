"""A seeded landscape for simulated scenes: laid out, painted and built, before any sensor looks at it."""
