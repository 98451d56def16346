"""Convolutions and products in the forms that are fast on a given machine."""
