"""Text, trees, plots and pages for people."""
