"""Cases: their files, the violations that they excuse, and their replay."""
