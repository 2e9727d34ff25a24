"""What features of each tap take in each number of bits, and how fast they are made so small."""
