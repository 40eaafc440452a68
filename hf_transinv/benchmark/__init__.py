"""How fast: every figure is measured beside what it is compared with, in the same run, and the ratios are what counts.

    options.py          what is measured
    timing.py           clocks, rounds, medians
    bounds.py           the least that a turn can cost, in forward passes
    runners.py          every method, ready to take its real turns
    launch_count.py     kernels, copies and waits of a program
    pretended_device.py what it is counted on: a GPU that is none
    turn_speed.py launches.py augmentation_speed.py corruption_speed.py feed_speed.py
                        a section each, with a table or two
    sections.py         the sections, one after another

What is compared is measured in rounds, one after another in each, so that a machine that slows down slows all of it;
a ratio is taken within a round, and the median of the rounds is shown with the smallest and the largest.
"""
