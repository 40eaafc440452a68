"""How fast: every figure is measured beside what it is compared with, in the same run, and the ratios are what counts.

    config.py      what is measured
    timing.py      clocks, rounds, medians
    bounds.py      the least that a turn can cost, in forward passes
    runners.py     every method, ready to take its real turns
    turns.py augmentation.py corruptions.py feeds.py   the sections, a table or two each
    report.py      the sections, one after another

What is compared is measured in rounds, one after another in each, so that a machine that slows down slows all of it;
a ratio is taken within a round, and the median of the rounds is shown with the smallest and the largest.
"""
