"""Checkers: pure functions from a history to a finding, one file for each promise."""
