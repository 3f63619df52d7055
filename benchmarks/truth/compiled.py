"""The door to numba, which has types of its own."""

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Any:
    """Return the function compiled at its first call, for the types it is called with.

    Nothing is kept on disk: numba's cache would not see a change of a function that another one calls.
    """
    return numba.njit(function)
