"""Running a model on tiles on a device."""
