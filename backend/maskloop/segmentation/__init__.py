"""From images to segments: load a checkpoint, preprocess, batch, forward, post-process."""
