"""Operations in the forms that are fast on a given machine, each beside XLA's own.

XLA's own operation is the reference: every fast form is the same function of the same arguments,
tested equal in value and in gradient. `kernels.py` holds the switch between the two.
"""
