"""Images kept from earlier sessions, and how they are chosen."""
