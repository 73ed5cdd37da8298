"""Workloads: what is enqueued, and what must be true of it afterwards; one file for each."""
