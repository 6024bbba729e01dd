"""From a violation to a finding: it is judged, confirmed, explained and saved as a case."""
