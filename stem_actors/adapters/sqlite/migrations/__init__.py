"""The schema, one file per version: `0001.sql` makes an empty file version 1, and so on. A file once released never changes."""
