"""Files of checkpoints, no code.

- ``default.safetensors`` is the embedded checkpoint; ``CARD.md`` says how it was trained and what it can do.
- ``classes.json`` lists the classes that it and its twin have seen, by the hash of the file.
- ``photo-side.safetensors`` holds what it shares with other checkpoints: all that photos need.

``model.checkpoint`` reads them.
"""
