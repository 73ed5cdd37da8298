"""The actors of a worker, one loop per file. `messages.py` is the language they talk; `worker.py` puts them together."""
