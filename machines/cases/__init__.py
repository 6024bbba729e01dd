"""Cases: their files, what they excuse, and their replay."""
