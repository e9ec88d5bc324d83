"""What every benchmark shares: timing side by side, peak memory, the machine's description, the table."""
