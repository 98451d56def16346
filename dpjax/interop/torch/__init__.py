"""PyTorch's files, read without torch and without running anything in them."""
