"""What holds for all tests."""

from __future__ import annotations

import pytest

from tests import parsed


@pytest.fixture(scope="session", autouse=True)
def botocores_data_is_read_once():
    end = parsed.once()
    yield
    end()
