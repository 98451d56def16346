"""Weights of other libraries as dpjax's, and dpjax's as theirs."""
