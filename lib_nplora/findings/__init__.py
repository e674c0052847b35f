"""What a pair of LoRAs is told to be, in sentences and pictures."""
