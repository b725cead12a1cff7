"""DeepSpeak v1 and v1.1."""
