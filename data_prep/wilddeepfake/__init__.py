"""WildDeepfake, face sequences from the internet."""
