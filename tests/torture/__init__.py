"""Faults, signals, races and hostile input against every command; see docs/reliability.md."""
