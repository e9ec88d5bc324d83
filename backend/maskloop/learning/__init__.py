"""From corrections to a better model: dataset, fine-tuning, evaluation, promotion, registry."""
