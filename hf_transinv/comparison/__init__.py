"""Several runs side by side, as one YAML plans them."""
