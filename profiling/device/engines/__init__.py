"""``gkt profile engines``: how fast each engine trains ResNet-8, beside PyTorch and the machine's bound."""
