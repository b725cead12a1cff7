"""UADFV."""
