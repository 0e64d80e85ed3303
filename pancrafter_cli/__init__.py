"""PAN-Crafter."""
