"""The loop: players take turns, on any number of devices, and resume to the bit."""
