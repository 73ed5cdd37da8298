"""The commands `stem` and `stem-node`."""
