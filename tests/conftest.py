"""What all tests go without: whatever costs much each time, and is the same each time."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def botocores_data_is_parsed_once():
    """Every session of botocore reads its own data anew: megabytes of JSON, for each run of ours.

    What one of its loaders has read holds for all that look in the same places: nobody changes it.
    """
    import botocore.session

    create = botocore.session.create_loader
    known: dict[str | None, dict[Any, Any]] = {}

    def create_loader(path: str | None = None) -> Any:
        loader = create(path)
        loader._cache = known.setdefault(path, {})
        return loader

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", create_loader)
        yield
