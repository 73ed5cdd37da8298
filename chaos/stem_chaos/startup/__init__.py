"""A folder for the import path of processes whose wall clock a fault may step: Python loads `sitecustomize` from there."""
