"""Runs an iterator in a thread of its own, a few items ahead."""

import atexit
import queue
import threading
from collections.abc import Generator
from contextlib import closing
from typing import Generic, TypeVar

T = TypeVar("T")

_PREFETCH = 2  # batches; a third would only take memory, as batches are decoded one after the other
_POLL_SECONDS = 0.1  # how soon the thread notices that it is to stop


class Prefetcher(Generic[T]):
    """Runs a generator in a thread, at most ``_PREFETCH`` items ahead.

    Args:
        items: run, and closed, by the thread alone.
    """

    def __init__(self, items: Generator[T, None, None]) -> None:
        self._ahead: queue.Queue[T | Exception] = queue.Queue(_PREFETCH)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(items,), name="streaming-feed", daemon=True)
        self._thread.start()
        # A thread that still reads parquet while the interpreter ends aborts the process.
        atexit.register(self.close)

    def next(self) -> T:
        """Waits for the next item; raises what the generator raised, and again if called again."""
        item = self._ahead.get()
        if isinstance(item, Exception):
            self._put(item)
            raise item
        return item

    def close(self) -> None:
        """Waits until the thread has ended."""
        atexit.unregister(self.close)
        self._stopped.set()
        self._thread.join()

    def _run(self, items: Generator[T, None, None]) -> None:
        with closing(items):
            try:
                for item in items:
                    if not self._put(item):
                        return
            except Exception as error:  # raised again in the thread that asks for the next item
                self._put(error)

    def _put(self, item: T | Exception) -> bool:
        """Returns False when the thread was stopped before there was room."""
        while not self._stopped.is_set():
            try:
                self._ahead.put(item, timeout=_POLL_SECONDS)
                return True
            except queue.Full:
                continue
        return False
