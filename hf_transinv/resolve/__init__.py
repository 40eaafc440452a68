"""Resolves names: to files that come with the library, local copies of the Hub, or the Hub."""
