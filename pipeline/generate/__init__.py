"""What the trained models make: synthetic lesion cohorts and pseudo-CT volumes."""
