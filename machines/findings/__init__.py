"""From a violation to a finding: judging, confirming, explaining and keeping it."""
