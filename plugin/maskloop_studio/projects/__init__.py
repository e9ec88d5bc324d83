"""What one Label Studio project asks for: its connection, model, training and order of tasks."""
