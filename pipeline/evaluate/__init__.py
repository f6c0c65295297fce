"""Evaluation: pseudo-CT against CT, synthetic lesions against held-out real ones."""
