"""The one exception for input that cannot be used: what was given, what was expected, what to do."""


class InputError(ValueError):
    """Something the user gave (a name, a folder, an image, a field) cannot be used as it is."""
