"""Text, CSV and pictures of finished runs."""
