from __future__ import annotations

import pytest

from proxy.runtime.wire import TcpNetwork


@pytest.fixture
def network() -> TcpNetwork:
    return TcpNetwork()
