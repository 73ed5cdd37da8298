"""`stem bench`: how fast tasks run here, beside what the broker could do at most.

command.py       options, rounds, exit code
measurements.py  what is measured, one function each
raw.py           the broker alone, by direct calls, nothing executed
bed.py           a private store and a worker on it: a node, or threads for a memory broker
tasks.py         the tasks, and the records by which they count themselves
records.py       reading those records: once each, and when
report.py        table and JSON
"""
