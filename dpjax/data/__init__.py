"""Demonstrations: from files on disk to batches on the device.

RLDS directory --rlds.read--> Episodes (flat columns [N, ...] + ends [E])
ends --windows.window_rows--> rows, mask [W, Tp]
(seed, i) --loader.batch_rows--> ids [B] --loader.gather--> Batch
"""
