"""What an owner writes against: registration, signatures, policies, the context."""
