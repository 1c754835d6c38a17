"""What a game is: its parameters, and the embedded game that draws faces of known parameters."""
