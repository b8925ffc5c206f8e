"""`python -m opentau_prep` is the command `opentau-prep`."""

from __future__ import annotations

import gc
import sys

from opentau_prep import interruption

__all__ = ["main"]


def main() -> None:
    """Run the command line; SIGINT and SIGTERM are handled before anything is imported for it."""
    interruption.install()
    # Imports make many objects that all stay: looking through them for garbage costs a tenth of the
    # time of a short command.
    gc.set_threshold(100_000, *gc.get_threshold()[1:])
    if sys.argv[1:] == ["--version"]:
        from opentau_prep.trainers import versions

        print(versions())  # noqa: T201 - without a parser's import
        return
    from opentau_prep.cli.app import main

    main()


if __name__ == "__main__":
    main()
