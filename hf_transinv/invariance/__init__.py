"""What a classifier is invariant to: sweeps -> tolerated_range -> report -> pictures -> page."""
