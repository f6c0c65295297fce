"""Commands of `scanloom`, by what they are about; flows/command_line.py puts them together."""
