"""Import and export of demonstrations."""
