"""Photos and arrays as people have them, read into one kind of image."""
