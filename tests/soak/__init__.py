"""What people and programs may send, by the thousand, each of which must end in an answer."""
