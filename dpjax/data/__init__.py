"""Demonstrations: from files on disk to batches on the device.

RLDS directory  --rlds.read-->               Episodes (flat columns [N, ...] and ends [E])
ends            --windows.window_indices-->  indices, mask [W, Tp]
(seed, i)       --loader.batch_indices-->    window ids [B]  --loader.gather-->  Batch
"""
