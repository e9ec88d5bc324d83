"""What is measured on images whose truth is known: made-up images, simulation, the small base models."""
