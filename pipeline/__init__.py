"""Domain steps of scanloom, each usable from a notebook without an orchestrator."""
