"""Score the device's own pipeline by the rules of the field: rendered people, public data sets, saved runs."""
