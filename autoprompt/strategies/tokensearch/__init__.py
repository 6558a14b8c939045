"""The parts of a search over tokens: triggers on their board, and where new ones come from."""
