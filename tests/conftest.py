"""Settings for all tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# No test depends on how busy the machine is.
settings.register_profile("any-load", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-load")
