"""Clients that are the app's own page, in a real browser."""
