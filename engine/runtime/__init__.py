"""Many callers, one device: batches, clips, health, and a bundle that changes meanwhile."""
