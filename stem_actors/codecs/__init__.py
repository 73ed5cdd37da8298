"""How values become bytes. Each codec wraps the next."""
