"""What devices cost that wait at a server which has nothing for them to do, and how soon they go on."""
