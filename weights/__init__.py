"""Files of checkpoints, no code.

- ``default.safetensors`` is the embedded checkpoint; ``CARD.md`` says how it was trained and what it can do.
- ``photo-side.safetensors`` holds what it shares with other checkpoints: all that photos need.
- ``detector.onnx`` finds boxes in photos, by ``model.engine.detector``.

``model.torch.checkpoint`` reads them.
"""
