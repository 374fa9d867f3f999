"""What botocore reads and computes in each session, done once for all sessions of a process."""

from collections.abc import Callable
from typing import Any

import botocore.session
from botocore.hooks import EventAliaser


def once() -> Callable[[], None]:
    """Share loaded JSON and the aliases of events between sessions from now on; returns what undoes it."""
    alias, EventAliaser._alias_event_name = (
        EventAliaser._alias_event_name,
        staticmethod(EventAliaser(None)._alias_event_name),
    )
    create = botocore.session.create_loader
    known: dict[str | None, dict[Any, Any]] = {}

    def create_loader(path: str | None = None) -> Any:
        loader = create(path)
        loader._cache = known.setdefault(path, {})
        return loader

    def end() -> None:
        botocore.session.create_loader = create
        EventAliaser._alias_event_name = alias

    botocore.session.create_loader = create_loader
    return end


def ahead() -> None:
    """Load what a client of the service needs; call it after `once`."""
    key = {"aws_access_key_id": "AKIA", "aws_secret_access_key": "secret"}
    session = botocore.session.Session()
    session.create_client("partnercentral-selling", region_name="us-east-1", **key).close()
