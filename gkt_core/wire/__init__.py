"""What travels: messages, shards, codecs, compression, noise."""
