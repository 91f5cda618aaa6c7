"""What a provider is made of, and where providers are found."""
