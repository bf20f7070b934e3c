"""Everything that moves weights: checkpoint files, recognition, mapping, targets, parity."""
