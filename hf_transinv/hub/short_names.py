"""Names of models and data without the folders they lie in."""

from pathlib import PurePath


def last_part(path: str) -> str:
    """The last part of a folder's path; of OUT/student: OUT."""
    parts = PurePath(path.replace("\\", "/")).parts
    return parts[-2] if parts[1:] and parts[-1] == "student" else parts[-1] if parts else path


def short_name(name: str) -> str:
    """A name that may or may not be a folder's: where it looks like one, its last part."""
    looks_local = name.startswith((".", "~", "/")) or name.count("/") > 1 or "\\" in name
    return last_part(name) if looks_local else name
