"""Quality of predictions: counts per image and class, the metrics from them, and the promotion gate."""
