"""What a library raises while it reads a user's dataset becomes an InputError that says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

from hf_transinv.errors import InputError
from hf_transinv.resolve.hub_errors import LOG_IN, client_says


@contextmanager
def reading(dataset: str, config: str | None = None) -> Iterator[None]:
    """Goes around a single call of a library, never around code of our own.

    `datasets` and pyarrow raise nearly any type on a damaged file, and the Hub's client on a failed request.

    Args:
        dataset: as the user gave it.
        config: which configuration of it.

    Raises:
        InputError: the call in the block failed.
    """
    try:
        yield
    except Exception as error:
        if "corresponds to no data" in str(error):
            raise InputError(f"A split of {dataset} is empty. Choose a split that has rows.") from error
        of_config = "" if config is None else f", configuration {config!r},"
        raise InputError(
            f"The dataset {dataset!r}{of_config} cannot be opened: {client_says(error)} Expected the id of a dataset "
            f"on the Hub that you can reach and read (for a private or gated one {LOG_IN}), a folder in the same "
            "shape, parquet files, a folder of images, or a table of image paths."
        ) from error
