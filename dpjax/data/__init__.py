"""Demonstrations: from files on disk to batches on the device.

RLDS directory --rlds.read--> Episodes (flat columns [N, ...] + ends [E])
ends --windows.window_indices--> rows, mask [W, Tp]
(seed, i) --loader.batch_indices--> ids [B] --loader.gather--> Batch
"""
