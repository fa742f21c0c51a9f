"""The exercises, one module for each notebook. Every module here is found and registered."""
