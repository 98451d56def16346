"""Reads PyTorch's files without torch, and without running any code in them."""
