"""Reports: one self-contained HTML page per run, from arrays and numbers."""
