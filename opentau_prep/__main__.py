"""`python -m opentau_prep` is the command `opentau-prep`."""

from opentau_prep.cli.app import main

main()
