"""The trainers' versions that this package equals; `docs/parity.md` says how that is known."""

from __future__ import annotations

from types import MappingProxyType

__all__ = ["TRAINERS"]

TRAINERS = MappingProxyType(
    {
        "OpenTau": "0.13.0 (0b153a9)",
        "LeRobot": "0.4.4",
        "openpi": "15a9616",
        "kai0": "9d93078",
    }
)
"""Trainer -> the version, or the commit, that was run next to this package."""


def versions() -> str:
    """Return what `--version` prints: this package's version, and what it equals."""
    from opentau_prep import __version__

    equals = ", ".join(f"{trainer} {version}" for trainer, version in TRAINERS.items())
    return f"opentau-prep {__version__}\nequals {equals}"
