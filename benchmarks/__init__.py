"""Speed of scanloom beside named peers, measured in turn, so that a ratio means something on any machine."""
