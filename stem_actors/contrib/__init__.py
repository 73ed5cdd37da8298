"""Where Stem meets frameworks of others. Each module imports its own, which whoever uses it has."""
