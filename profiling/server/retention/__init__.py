"""What a long run keeps, and how long a look at it takes."""
