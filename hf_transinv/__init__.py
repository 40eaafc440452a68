"""Transfer learning that carries a teacher's invariances over to a student."""
