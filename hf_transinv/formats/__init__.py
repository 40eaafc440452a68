"""Forms of text: Markdown, and JSON with types."""
