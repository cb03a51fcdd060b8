"""What a person looks at: figures and model cards."""
