"""What botocore reads anew in each session, megabytes of JSON, read once for all sessions of a process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import botocore.session

if TYPE_CHECKING:
    from collections.abc import Callable


def once() -> Callable[[], None]:
    """From now on; returns what ends it.

    What one of its loaders has read holds for all that look in the same places: nobody changes it.
    """
    create = botocore.session.create_loader
    known: dict[str | None, dict[Any, Any]] = {}

    def create_loader(path: str | None = None) -> Any:
        loader = create(path)
        loader._cache = known.setdefault(path, {})
        return loader

    def end() -> None:
        botocore.session.create_loader = create

    botocore.session.create_loader = create_loader
    return end


def ahead() -> None:
    """Read what a client of the service needs; after `once`."""
    key = {"aws_access_key_id": "AKIA", "aws_secret_access_key": "secret"}
    session = botocore.session.Session()
    session.create_client("partnercentral-selling", region_name="us-east-1", **key).close()
