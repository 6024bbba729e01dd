"""Reports of a search: the finding, the summary, progress, and pages."""
