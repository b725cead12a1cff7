"""People's own images and videos: folders real/ and fake/, or a table."""
