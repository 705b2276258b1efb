"""The method without Lightning: stages, losses, optimiser, order of batches."""
