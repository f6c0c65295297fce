"""YAML presets that ship with scanloom; one file is one reproducible run."""
