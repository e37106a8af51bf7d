"""Those who want to be told of something, and whose faults are their own.

Knows nothing about what is told.
"""

import logging
from collections.abc import Callable
from typing import Generic, TypeVar

_LOG = logging.getLogger(__name__)

News = TypeVar("News")


class Observers(Generic[News]):
    """Functions that are told the same, in the order in which they were added."""

    def __init__(self) -> None:
        self._observers: list[Callable[[News], None]] = []

    def add(self, observer: Callable[[News], None]) -> None:
        """Have one more told."""
        self._observers.append(observer)

    def tell(self, news: News) -> None:
        """Tell everybody; an observer that raises is logged, and the others are told."""
        for observer in self._observers:
            try:
                observer(news)
            except Exception:
                _LOG.exception("An observer failed.")
