"""The commands, a module each with a `main`: what `transinv NAME` starts, and the scripts in recipes/ too."""
