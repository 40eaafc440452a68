"""What a classifier is invariant to: sweeps -> widest_range -> report -> pictures -> page."""
