"""One method per file: players, turns, and a loss for each player."""
