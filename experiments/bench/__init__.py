"""Speed and the scripted controllers' floors, measured on this machine."""
