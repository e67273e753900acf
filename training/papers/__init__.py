"""Trains the default network, and networks that papers describe, by recipes. No search needs this package."""
