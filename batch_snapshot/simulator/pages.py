"""Pagination: a listing is taken once, then handed out page by page."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TYPE_CHECKING, Any, Final

from batch_snapshot.simulator.refusals import invalid_field

if TYPE_CHECKING:
    from collections.abc import Callable

    Rows = list[dict[str, Any]]

#: Items of a page when the request names no number.
_DEFAULT_SIZE: Final = 100
#: Listings that are kept; the oldest gives way, and its tokens become invalid.
_KEPT: Final = 10_000


class Pages:
    """The listings that still have pages to come."""

    def __init__(self) -> None:
        """Start with none."""
        self._listings: dict[int, tuple[object, Rows]] = {}
        self._taken = 0

    def page(
        self, operation: str, params: dict[str, Any], rows: Callable[[], Rows]
    ) -> tuple[Rows, str | None]:
        """Return one page and the token of the next.

        Raises:
            Refusal: a NextToken that is none of ours, or another request's.
        """
        size = params.get("MaxResults") or _DEFAULT_SIZE
        asked = (
            operation,
            repr(sorted((k, v) for k, v in params.items() if k not in {"MaxResults", "NextToken"})),
        )
        token = params.get("NextToken")
        if token is None:
            start, listing, number = 0, rows(), 0
        else:
            number, start = _decode(token)
            known, listing = self._listings.get(number, (None, []))
            if known != asked or not 0 < start < len(listing):
                raise invalid_field("NextToken", "NextToken is not valid for this request")
        end = start + size
        if end >= len(listing):
            return listing[start:], None
        if not number:
            number = self._keep(asked, listing)
        return listing[start:end], _encode(number, end)

    def _keep(self, asked: object, listing: Rows) -> int:
        self._taken += 1
        self._listings[self._taken] = (asked, listing)
        if len(self._listings) > _KEPT:
            del self._listings[next(iter(self._listings))]
        return self._taken


def _encode(number: int, start: int) -> str:
    return urlsafe_b64encode(f"{number}:{start}".encode()).decode()


def _decode(token: str) -> tuple[int, int]:
    try:
        number, start = urlsafe_b64decode(token.encode()).decode().split(":")
        return int(number), int(start)
    except ValueError:
        raise invalid_field("NextToken", "NextToken is not valid") from None
