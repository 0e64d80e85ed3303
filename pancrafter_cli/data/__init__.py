"""Samples for training, and made-up scenes to try things on."""
