"""Fine-tuning: recipe, loop, resuming, several processes."""
