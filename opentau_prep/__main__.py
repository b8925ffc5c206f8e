"""`python -m opentau_prep` is the command `opentau-prep`."""

from opentau_prep import interruption

__all__ = ["main"]


def main() -> None:
    """Run the command line; SIGINT and SIGTERM are handled before anything is imported for it."""
    interruption.install()
    from opentau_prep.cli.app import main

    main()


if __name__ == "__main__":
    main()
