"""Pages and logs that several routes share."""
