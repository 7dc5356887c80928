"""Reads batches from loaders that a user wrote; reports their exceptions as the user's own errors, with the line."""

from collections.abc import Iterable, Iterator
from typing import Any

from penjing.errors import PenjingError, with_article
from penjing.raised import raised


def check_loader(loader: Iterable[Any], name: str = "The loader") -> None:
    """Makes sure, without asking for a batch, that a loader may give some.

    Raises:
        PenjingError: it can't be iterated.
    """
    if not hasattr(loader, "__iter__"):
        raise PenjingError(
            f"{name} is {with_article(type(loader).__name__)}, and must be something that gives batches: a DataLoader, a list of "
            "them."
        )


def read(loader: Iterable[Any], name: str = "The loader") -> Iterator[Any]:
    """Yields a loader's batches.

    Args:
        loader: whatever can be iterated.
        name: what it is called in errors, such as "data.train".

    Raises:
        PenjingError: it can't be iterated, or raises on the way; says at which batch and where.
    """
    check_loader(loader, name)
    batches: Iterator[Any] | None = None
    number = 1
    while True:
        try:
            batches = iter(loader) if batches is None else batches
            batch = next(batches)
        except StopIteration:
            return
        except PenjingError:  # of loaders of ours, which name the file
            raise
        except Exception as error:
            raise raised(f"{name}, asked for batch {number}, raised", error) from error
        yield batch
        number += 1


def first(loader: Iterable[Any], name: str = "The loader") -> Any:
    """Returns a loader's first batch.

    Raises:
        PenjingError: as `read`, or there is none.
    """
    for batch in read(loader, name):
        return batch
    raise PenjingError(f"{name} holds no batches.")
