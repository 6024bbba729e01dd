"""Cases on disk, and their replay."""
