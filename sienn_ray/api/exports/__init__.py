"""Download links and deletion of exports."""
