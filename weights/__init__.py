"""Files of checkpoints, no code.

- ``default.safetensors`` is the embedded checkpoint; ``CARD.md`` says how it was trained and what it can do.
- ``known.toml`` lists public checkpoints that `python -m model fetch` downloads.

``model.checkpoint`` reads them.
"""
