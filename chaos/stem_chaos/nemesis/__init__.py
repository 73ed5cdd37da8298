"""The nemesis: what injects faults, one file for each kind."""
