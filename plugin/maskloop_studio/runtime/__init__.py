"""Running the parts and looking at them: supervisor, scheduler, progress, status page."""
