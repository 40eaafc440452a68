"""What a classifier is invariant to: sweeps and tolerated_range measure it, report, plots and page present it."""
