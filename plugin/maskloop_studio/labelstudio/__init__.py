"""Label Studio's API and its protocol with labeling backends, typed."""
