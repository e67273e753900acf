"""Networks in PyTorch, their data, training, evaluation and illustrations: what a search does not need."""
