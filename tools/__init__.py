"""Tools of those who write this project; nothing here is installed."""
