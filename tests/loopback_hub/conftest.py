"""The fixtures of this folder's tests."""

from tests.loopback_hub.fixture import hub, hub_here

__all__ = ["hub", "hub_here"]
