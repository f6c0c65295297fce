"""Ingest: read, check, de-identify and catalog scans; quarantine what cannot be trusted, with a reason."""
