"""Fine-tuning the teacher and distilling the students, on the Hugging Face Trainer."""
