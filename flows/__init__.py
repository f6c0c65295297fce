"""Prefect flows and the command line: order, retries, caching, artifacts. No computation lives here."""
