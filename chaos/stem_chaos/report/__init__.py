"""Reports of a judged history: for a terminal, as JSON, as JUnit XML, and as one HTML page."""
