"""What writes the generated tables and plots of the pages. Not in the wheel."""
