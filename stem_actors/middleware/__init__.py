"""Middleware: functions of the user around enqueueing a task and around running it. `chain.py` puts them in order."""
