"""What a blueprint will cost and whether it can work, before anything is trained."""
