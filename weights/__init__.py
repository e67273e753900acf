"""The default checkpoint and what is known of it."""
